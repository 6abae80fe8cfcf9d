"""The labelled lists: what --ratio leaves, whose images they are, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.xray.labels import find_labelled
from datasets.xray.lists import CHEST14_LABELS
from datasets.xray.patients import patient
from utils.errors import UserError


def lists(folder: Path, train: list[str], valid: list[str], test: list[str], labels: int = 14) -> Path:
    """Empty images (they are found, not read) and their lists; label 0 of an image is 1 if its number is odd."""
    (folder / "images").mkdir(parents=True)
    for name, images in (("train", train), ("valid", valid), ("test", test)):
        for image in images:
            (folder / "images" / image).touch()
        lines = (f"{image} {' '.join([str(int(image[7]) % 2), *['0'] * (labels - 1)])}\n" for image in images)
        (folder / f"chest_{name}.txt").write_text("".join(lines))
    return folder


def names(*patients: int, each: int = 2) -> list[str]:
    return [f"{number:08d}_{image:03d}.png" for number in patients for image in range(each)]


@pytest.mark.parametrize("count", [2, 14])
def test_ratio_leaves_the_rest_of_the_list(tmp_path: Path, count: int) -> None:
    train = names(1, 2, 3)
    data = lists(tmp_path, train, names(4), names(5), count)
    whole = find_labelled(data, None, 1.0)
    assert [Path(file).name for file in whole.train.files] == train
    np.testing.assert_array_equal(whole.train.labels, [[i in (0, 1, 4, 5), *[0] * (count - 1)] for i in range(6)])
    assert whole.classes == (CHEST14_LABELS if count == 14 else ("class_1", "class_2"))
    assert (len(whole.valid.files), len(whole.test.files)) == (2, 2)
    assert (whole.listed, find_labelled(data, None, 0.5).listed) == (6, 6)
    rest = find_labelled(data, None, 0.5)  # the cut goes through patient 2
    assert [Path(file).name for file in rest.train.files] == train[3:]
    np.testing.assert_array_equal(rest.train.labels, whole.train.labels[3:])


def test_whose_image_it_is() -> None:
    assert patient("00001522_000.png") == patient("images_002/00001522_013.png") == "00001522"
    assert patient("scan_1.png") != patient("scan_2.png")


def test_a_patient_in_two_lists_is_named(tmp_path: Path) -> None:
    data = lists(tmp_path / "a", names(1, 2), names(3), [*names(4), "00000002_007.png"])
    with pytest.raises(UserError, match=r"patient 00000002 is in both .*chest_train.txt and .*chest_test.txt"):
        find_labelled(data, None, 1.0)
    data = lists(tmp_path / "b", names(1, 2), names(3, 4), names(3, 4))
    with pytest.raises(UserError, match=r"2 patients \(00000003, 00000004\) are in both .*valid.* and .*test"):
        find_labelled(data, None, 1.0)


def test_a_ratio_cuts_one_patient_at_most(tmp_path: Path) -> None:
    mixed = [name for pair in zip(names(1, 2), names(1, 2), strict=True) for name in (pair[0],)]
    shuffled = [mixed[0], mixed[2], mixed[1], mixed[3]]  # both patients on both sides
    data = lists(tmp_path, shuffled, names(3), names(4))
    assert len(find_labelled(data, None, 1.0).train.files) == 4
    with pytest.raises(UserError, match=r"--ratio 0.5: 2 patients .* in both the first part and the rest"):
        find_labelled(data, None, 0.5)


def test_lists_without_labels_or_with_others_are_refused(tmp_path: Path) -> None:
    data = lists(tmp_path, names(1), names(2), names(3))
    lists_wanted = r"by --train_list FILE, and put a chest_valid.txt and a chest_test.txt into --data"
    with pytest.raises(UserError, match=rf"--train_list none: .* no labels; name one that has them, {lists_wanted}"):
        find_labelled(data, "none", 1.0)
    (data / "mine.txt").write_text("a.png 0\n".replace("0", " ".join("0" * 14)))
    with pytest.raises(UserError, match=rf"complete the images, or name a list .*{lists_wanted}") as caught:
        find_labelled(data, str(data / "mine.txt"), 1.0)
    assert "--train_list none" not in str(caught.value)
    (data / "names.txt").write_text("\n".join(names(1)))
    with pytest.raises(UserError, match=r"names.txt has no labels: a line is"):
        find_labelled(data, str(data / "names.txt"), 1.0)
    (data / "chest_test.txt").write_text("00000003_000.png 0 1\n")
    with pytest.raises(UserError, match=r"chest_train.txt has 14 labels a line and .*chest_test.txt 2"):
        find_labelled(data, None, 1.0)
    (data / "chest_test.txt").unlink()  # then the project's own counts
    with pytest.raises(UserError, match=r"train_val_txt/chest_test.txt names are not in .*put a chest_valid.txt"):
        find_labelled(data, None, 1.0)

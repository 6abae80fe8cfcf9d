"""``main.py --preview``: scans take turns."""

from __future__ import annotations

from phases.preview import in_turn


def test_scans_take_turns_and_images_stay_as_they_are() -> None:
    files = ["d/subset0/a_img_0.npy", "d/subset0/a_img_1.npy", "d/subset1/b_img_0.npy", "d/subset1/b_img_1.npy"]
    third = "d/subset0/a_img_2.npy"
    assert in_turn([*files, third]) == [files[0], files[2], files[1], files[3], third]
    images = ["d/2.png", "d/1.png", "d/3.dcm"]
    assert in_turn(images) == images

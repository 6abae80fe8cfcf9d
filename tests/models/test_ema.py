"""The teacher is a strict moving average of the student's parameters, and of nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.ema import make_teacher, teacher_mode, update_teacher


def test_update_is_the_literal_average_of_parameters_only() -> None:
    student = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).double()
    teacher = make_teacher(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    student[1].running_mean.fill_(7)
    before = {name: value.clone() for name, value in teacher.named_parameters()}
    update_teacher(teacher, student, 0.999)
    for name, value in teacher.named_parameters():
        expected = 0.999 * before[name] + 0.001 * dict(student.named_parameters())[name]
        torch.testing.assert_close(value, expected, rtol=1e-14, atol=1e-15)
    assert teacher[1].running_mean.abs().max() == 0, "buffers are the teacher's own"
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_networks_that_differ_are_refused_by_name() -> None:
    student = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    teacher = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"1\.bias"):
        update_teacher(teacher, student, 0.9)


def test_teacher_evaluates_but_normalises_with_its_own_batches() -> None:
    teacher = teacher_mode(nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3)))
    assert not teacher[0].training
    assert teacher[1].training

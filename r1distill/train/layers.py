"""Which layer of the student learns from which of the teacher."""

from r1distill.errors import UserError
from r1distill.inner_sections import Layers


def layer_pairs(layers: Layers, count: int | None, n_student: int, n_teacher: int, key: str) -> list[tuple[int, int]]:
    """(student's, teacher's), numbers of layers from 1, ascending.

    "uniform": the i-th of n layers and the one at the same share of the depth, ceil(i N / n) of N, so that the last learns
    from the last (TinyBERT, section 3.2, https://arxiv.org/abs/1909.10351); with `count`, of so many layers spread alike.
    "last": the last `count`, one to one. `key` of the recipe is for the error: UserError for layers that there are not.
    """
    if isinstance(layers, dict):
        pairs = sorted((int(student), teacher) for student, teacher in layers.items())
        for student, teacher in pairs:
            if student > n_student or teacher > n_teacher:
                raise UserError(
                    f'{key}.layers: "{student}" = {teacher}, and the student has {n_student} layers, the teacher {n_teacher}'
                )
        return pairs
    most = n_student if layers == "uniform" else min(n_student, n_teacher)
    count = most if count is None else count
    if count > most:
        raise UserError(f"{key}.count = {count}, and at most {most} layers can be paired; lower it")
    if layers == "last":
        return [(n_student - count + n, n_teacher - count + n) for n in range(1, count + 1)]
    students = [-(-n * n_student // count) for n in range(1, count + 1)]
    return [(student, -(-student * n_teacher // n_student)) for student in students]

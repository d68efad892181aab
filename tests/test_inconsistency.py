"""The operator: section 12 of the authors' facts, their functions in plain loops, invariants, morphology, refusals."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semiseg.batch import IGNORE
from semiseg.errors import Refusal
from semiseg.inconsistency import Consensus, fill_input, foreground_gate, inconsistency_mask
from semiseg.task import Multiclass, Multilabel


def rows(*members, multilabel=False):
    """Members' labels as rows of pixels (or of channels of pixels): (M,1,1,W) or (M,1,K,1,W)."""
    labels = torch.tensor(members)
    return labels.unsqueeze(1).unsqueeze(-2) if multilabel else labels.view(len(members), 1, 1, -1)


def random_labels(seed, members=3, classes=3, size=4, channels=0):
    g = torch.Generator().manual_seed(seed)
    shape = (members, 2, channels, size, size) if channels else (members, 2, size, size)
    return torch.randint(2 if channels else classes, shape, generator=g, dtype=torch.uint8)


BINARY = [
    ([[1, 1, 0, 0], [1, 0, 1, 0]], [1, 0, 0, 0], [0, 1, 1, 0]),
    ([[1, 1, 0], [1, 1, 0], [1, 0, 0]], [1, 0, 0], [0, 1, 0]),
]


@pytest.mark.parametrize(("teachers", "label", "mask"), BINARY)
def test_binary_vectors(teachers, label, mask):
    for task in (None, Multilabel(["cell"])):
        made = inconsistency_mask(rows(*[[t] for t in teachers], multilabel=True), task, fill=0)
        assert made.label.flatten().tolist() == label and made.inconsistent.flatten().int().tolist() == mask


def test_multiclass_vector():
    for task in (None, Multiclass("abcd")):
        made = inconsistency_mask(rows([2, 2, 1, 0], [2, 2, 1, 0], [2, 3, 1, 0]), task, fill=0)
        assert made.label.flatten().tolist() == [2, 0, 1, 0]
        assert made.inconsistent.flatten().int().tolist() == [0, 1, 0, 0]


ONE = [[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 1]]
TWO = [[1, 0, 0, 1], [0, 1, 0, 0], [0, 1, 0, 1]]


def test_multilabel_vector_before_blocking():
    """Per channel, disputed elements of the intersection are 0 anyway, so filling with 0 shows the intersection."""
    made = inconsistency_mask(rows(ONE, TWO, multilabel=True), reduce="channel", fill=0)
    assert made.label[0, :, 0].tolist() == [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert (~made.agree)[0, :, 0].int().tolist() == [[0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert made.inconsistent[0, 0, 0].int().tolist() == [0, 1, 1, 0] and int((~made.agree).sum()) == 2


def test_multilabel_vector_after_union_blocking():
    made = inconsistency_mask(rows(ONE, TWO, multilabel=True), fill=0)
    assert made.label[0, :, 0].tolist() == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert made.inconsistent[0, 0, 0].int().tolist() == [0, 1, 1, 0] and made.agree.shape == (1, 1, 1, 4)


def authors_binary(labels):
    """functions.py:3104: the sum of K binary masks; label where it is K, inconsistent where it is neither 0 nor K."""
    k = len(labels)
    label, mask = torch.zeros(labels.shape[1:], dtype=torch.uint8), torch.zeros(labels.shape[1:], dtype=torch.bool)
    for i in itertools.product(*(range(n) for n in label.shape)):
        total = sum(int(m[i]) for m in labels)
        label[i], mask[i] = total == k, total not in (0, k)
    return label, mask


def authors_multiclass(labels):
    """functions.py:3123: inconsistent where any teacher differs from teacher 0; the label there is 0."""
    label, mask = torch.zeros(labels.shape[1:], dtype=torch.uint8), torch.zeros(labels.shape[1:], dtype=torch.bool)
    for i in itertools.product(*(range(n) for n in label.shape)):
        mask[i] = any(int(m[i]) != int(labels[0][i]) for m in labels[1:])
        label[i] = 0 if mask[i] else labels[0][i]
    return label, mask


@pytest.mark.parametrize("members", [2, 3, 4])
def test_the_authors_two_functions(members):
    for seed in range(4):
        labels = random_labels(seed, members)
        made, (label, mask) = inconsistency_mask(labels, fill=0), authors_multiclass(labels)
        assert torch.equal(made.label, label) and torch.equal(made.inconsistent[:, 0], mask)
        labels = random_labels(seed, members, channels=1)
        made, (label, mask) = inconsistency_mask(labels, fill=0), authors_binary(labels)
        assert torch.equal(made.label, label) and torch.equal(made.inconsistent, mask)
        labels = random_labels(seed, members, channels=3)
        made, (label, mask) = inconsistency_mask(labels, fill=0), authors_binary(labels)
        union = mask.any(1, keepdim=True)
        assert torch.equal(made.inconsistent, union) and torch.equal(made.label, label * ~union)


some = st.tuples(
    st.integers(0, 10**6), st.integers(2, 5), st.sampled_from([0, 1, 3]), st.sampled_from(["union", "channel"])
)


@given(some)
def test_invariants(drawn):
    seed, members, channels, reduce = drawn
    labels = random_labels(seed, members, channels=channels)
    made = inconsistency_mask(labels, reduce=reduce)
    g = torch.Generator().manual_seed(seed)
    shuffled = inconsistency_mask(labels[torch.randperm(members, generator=g)], reduce=reduce)
    assert torch.equal(shuffled.label, made.label) and torch.equal(shuffled.agree, made.agree)
    more = inconsistency_mask(torch.cat([labels, random_labels(seed + 1, 1, channels=channels)]), reduce=reduce)
    assert not (more.agree & ~made.agree).any()
    agree = (made.agree if channels else made.agree[:, 0]).expand_as(made.label)
    for member in labels:
        assert torch.equal(made.label[agree], member[agree])
    assert (made.label[~agree] == IGNORE).all()
    everybody = labels[:1].expand_as(labels)
    same = inconsistency_mask(everybody, reduce=reduce)
    assert torch.equal(same.label, labels[0]) and not same.inconsistent.any()


@given(st.integers(0, 10**6), st.integers(2, 5), st.sampled_from([0, 1, 2]), st.data())
def test_some_of_them_agree(seed, members, channels, data):
    needed = data.draw(st.integers(2, members))
    labels = random_labels(seed, members, classes=4, channels=channels)
    made = inconsistency_mask(labels, agreement=needed, reduce="channel")
    agree = made.agree if channels else made.agree[:, 0]
    for i in itertools.product(*(range(n) for n in made.label.shape)):
        votes = [int(m[i]) for m in labels]
        most = max(votes.count(v) for v in votes)
        assert bool(agree[i]) == (most >= needed)
        winner = min(v for v in votes if votes.count(v) == most)
        assert int(made.label[i]) == (winner if most >= needed else IGNORE)


def test_all_of_them_is_the_definition():
    labels = random_labels(5, 4)
    for a, b in zip(inconsistency_mask(labels, agreement=4), inconsistency_mask(labels), strict=True):
        assert torch.equal(a, b)


def opencv(mask, side, erode):
    """One erosion or dilation by ones(side, side), anchor side // 2; pixels beyond the image do not take part."""
    out = torch.zeros_like(mask)
    before = side // 2
    for b, c, y, x in itertools.product(*(range(n) for n in mask.shape)):
        window = mask[b, c, max(0, y - before) : y - before + side, max(0, x - before) : x - before + side]
        out[b, c, y, x] = window.all() if erode else window.any()
    return out


@pytest.mark.parametrize(("erode", "dilate"), [(0, 0), (1, 1), (3, 0), (0, 3), (3, 3), (5, 3), (2, 2), (3, 4)])
def test_morphology(erode, dilate):
    for seed in range(3):
        g = torch.Generator().manual_seed(seed)
        labels = torch.randint(3, (2, 7, 6), generator=g)
        labels = torch.stack([labels, labels * (torch.rand(2, 7, 6, generator=g) < 0.5)])
        plain = inconsistency_mask(labels).inconsistent
        want = opencv(plain, erode, True) if erode > 1 else plain
        want = opencv(want, dilate, False) if dilate > 1 else want
        made = inconsistency_mask(labels, erode=erode, dilate=dilate)
        assert torch.equal(made.inconsistent, want)
        assert (made.label[want[:, 0]] == IGNORE).all() and (made.label[~want[:, 0]] != IGNORE).all()
        for b, y, x in (
            (plain[:, 0] & ~want[:, 0]).nonzero().tolist()
        ):  # freed: what grows into it, or the smallest label
            near = [(v, u) for v in range(max(0, y - 1), y + 2) for u in range(max(0, x - 1), x + 2)]
            known = [int(labels[0, b, v, u]) for v, u in near if v < 7 and u < 6 and not plain[b, 0, v, u]]
            assert int(made.label[b, y, x]) == max(known, default=0)
        turned = inconsistency_mask(labels.flip(0), erode=erode, dilate=dilate)
        assert torch.equal(made.label, turned.label)


def test_an_opening_drops_slivers_and_keeps_blocks_at_the_border():
    labels = torch.zeros(2, 1, 8, 8).long()
    labels[1, 0, :, 3] = 1  # a line of one pixel
    labels[1, 0, :3, 5:] = 1  # a block of 3 px in the corner
    made = inconsistency_mask(labels, erode=3, dilate=3)
    want = torch.zeros(8, 8).bool()
    want[:3, 5:] = True
    assert torch.equal(made.inconsistent[0, 0], want)


def test_agreed_labels_grow_into_a_gap():
    """By hand: a line of one pixel between classes 1 and 2 goes to 2, as later ids overwrite earlier ones."""
    one = torch.tensor([1, 1, 0, 2, 2]).expand(1, 5, 5).clone()
    two = one.clone()
    two[:, :, 2] = 3
    made = inconsistency_mask(torch.stack([one, two]), erode=3, dilate=3)
    assert not made.inconsistent.any() and made.label[0, 0].tolist() == [1, 1, 2, 2, 2]
    none = torch.full_like(one, IGNORE)  # members that agree on having no opinion teach nothing
    none[:, :, 2], other = 0, none.clone()
    other[:, :, 2] = 1
    assert inconsistency_mask(torch.stack([none, other]), erode=3).label[0, 0].tolist() == [255, 255, 0, 255, 255]


@pytest.mark.parametrize("labels", [1, 2])
def test_overlapping_labels_grow_each_by_itself(labels):
    """And a single one does not: its freed pixels are background."""
    one = torch.tensor([1, 1, 0, 0, 0]).expand(1, labels, 5, 5).clone()
    two = one.clone()
    two[:, :, :, 2] = 1
    made = inconsistency_mask(torch.stack([one, two]), erode=3, dilate=3)
    assert not made.inconsistent.any() and made.label[0, 0, 0].tolist() == [1, 1, int(labels > 1), 0, 0]


@pytest.mark.parametrize(
    ("labels", "options", "text"),
    [
        (torch.zeros(1, 1, 2, 2).long(), {}, "committee has 1 member"),
        (torch.zeros(3, 1, 2, 2).long(), {"agreement": 1}, "agreement is 1"),
        (torch.zeros(3, 1, 2, 2).long(), {"agreement": 4}, "agreement is 4"),
        (torch.zeros(2, 1, 2, 2).long(), {"reduce": "vote"}, "union or channel"),
        (torch.zeros(2, 2, 2).long(), {}, r"shape \(2, 2, 2\)"),
        (torch.zeros(2, 1, 2, 2).long(), {"task": Multilabel(["a"])}, "label channels"),
        (torch.zeros(2, 1, 1, 2, 2).long(), {"task": Multiclass("ab")}, "class ids"),
        (torch.rand(2, 1, 2, 2), {}, "discretise first"),
    ],
)
def test_refusals(labels, options, text):
    with pytest.raises(Refusal, match=text) as refused:
        inconsistency_mask(labels, **options)
    assert refused.value.exit == 2


def test_small_types_hold_the_fill():
    eight = inconsistency_mask(torch.tensor([[[[1, 1]]], [[[1, 0]]]], dtype=torch.int8))
    assert eight.label.flatten().tolist() == [1, IGNORE]
    votes = torch.tensor([[[[[True, True]]]], [[[[True, False]]]]])
    assert inconsistency_mask(votes).label.flatten().tolist() == [1, IGNORE]


def test_filling_the_input():
    image = torch.rand(2, 3, 4, 4)
    where = torch.zeros(2, 1, 4, 4).bool()
    where[0, 0, :2] = True
    hidden = where.expand_as(image)
    assert fill_input(image, where, "none") is image
    assert (fill_input(image, where, "zero")[hidden] == 0).all()
    mean = fill_input(image, where, "mean")
    torch.testing.assert_close(mean[0, :, 0, 0], image[0].mean((1, 2)))
    noise = fill_input(image, where, "noise", torch.Generator().manual_seed(1))
    assert torch.equal(noise, fill_input(image, where, "noise", torch.Generator().manual_seed(1)))
    assert (noise[hidden] != image[hidden]).all() and noise.min() >= 0 and noise.max() <= 1
    for how in ("zero", "mean", "noise"):
        assert torch.equal(fill_input(image, where, how)[~hidden], image[~hidden])
    with pytest.raises(Refusal, match="none or zero or mean or noise"):
        fill_input(image, where, "black")


def test_the_gate_of_the_paper():
    """Foreground 0: drop; as much as is inconsistent: drop; more: keep. One image each, binary and of classes."""
    one = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    two = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    keep = [False, False, True, False, True]  # 0 > 1, 1 > 1, 2 > 1, 0 > 0, 4 > 0
    for fill in (0, IGNORE):
        binary = torch.tensor([one, two])[:, :, None, None]
        assert foreground_gate(inconsistency_mask(binary, fill=fill)).tolist() == keep
        classes = torch.tensor([one, two])[:, :, None] * 2  # class 2 in place of 1
        assert foreground_gate(inconsistency_mask(classes, fill=fill)).tolist() == keep


def test_the_gate_counts_a_pixel_with_two_labels_once():
    """Pixels 0 and 1 carry an agreed label, one of them both; 2 and 3 are disputed: 2 > 2 does not pass."""
    one = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 1]]).view(1, 2, 1, 4)
    two = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]).view(1, 2, 1, 4)
    for reduce in ("union", "channel"):
        assert not foreground_gate(inconsistency_mask(torch.stack([one, two]), reduce=reduce)).item()
    agree = torch.tensor([True, True, False, True]).view(1, 1, 1, 4)
    assert foreground_gate(Consensus(torch.stack([one[0]]), agree)).item()  # 3 > 1


def test_model_ensemble_labels_of_the_paper_are_those_before_blocking():
    """Section 12: on binary sets the intersection that ME teaches is the IM label; blocking with 0 changes nothing."""
    for seed in range(4):
        labels = random_labels(seed, 3, channels=1)
        assert torch.equal(inconsistency_mask(labels, fill=0).label, labels.amin(0))


def test_ties_at_the_threshold():
    """A probability of exactly .5 is no label (strict), for every kind of label; argmax takes the first of equals."""
    half = torch.full((1, 1, 1, 1), 0.5)
    assert Multilabel(["cell"]).label(half).item() == 0
    assert Multiclass("ab").label(half.expand(1, 2, 1, 1)).item() == 0


@pytest.mark.parametrize(("wrong", "said"), [
    ({"fill": 256}, "fill is 256"), ({"fill": -1}, "fill is -1"), ({"erode": -1}, "erode is -1"),
    ({"dilate": 2.5}, "dilate is 2.5"),
])  # fmt: skip
def test_numbers_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(Refusal, match=said):
        inconsistency_mask(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), **wrong)


def test_wide_unsigned_labels():
    """Torch compares them and does little else."""
    labels = np.random.default_rng(0).integers(0, 3, (3, 1, 6, 6))
    made = [inconsistency_mask(torch.from_numpy(labels.astype(t))) for t in (np.uint16, np.uint32, np.int64)]
    assert all(torch.equal(m.label, made[2].label) and torch.equal(m.agree, made[2].agree) for m in made)

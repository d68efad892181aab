import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.data.folder import find
from semiseg.data.index import Index, Item
from semiseg.data.splits import carve_val, choose_labels
from semiseg.errors import Refusal


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def lists(root, **files):
    (root / "splits").mkdir()
    for name, text in files.items():
        (root / f"splits/{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return find(root)


def names(items):
    return [item.name for item in items]


def items(*names_):
    from pathlib import Path

    return [Item(n, Path(f"images/{n}.png"), (Path(f"masks/{n}.png"),)) for n in names_]


def test_stems_in_every_shape(tmp_path):
    touch(tmp_path, *(f"images/{n}.png" for n in "abcdef"), *(f"masks/{n}.png" for n in "abcdf"))
    index = lists(tmp_path, labeled="c\r\n\r\na\r\n", unlabeled=b"\xef\xbb\xbfe\nb", val="d\n", test="f.png\n")
    assert not index.problems and index.layout == "lists"
    assert names(index.labeled) == ["c", "a"]  # the order of the file: its first lines are the subsets
    assert names(index.unlabeled) == ["b", "e"]
    assert index.unlabeled[0].masks and not index.unlabeled[1].masks
    assert names(index.val) == ["d"] and names(index.test) == ["f"]


def test_pairs_as_in_unimatch_and_cps(tmp_path):
    touch(tmp_path, *(f"JPEGImages/{n}.jpg" for n in ("1", "2", "3 x")), "Seg/1.png", "Seg/2.png", "Seg/3 x.png")
    text = "JPEGImages/1.jpg Seg/1.png\n/JPEGImages/2.jpg\t/Seg/2.png\nJPEGImages/3 x.jpg Seg/3 x.png"
    index = lists(tmp_path, labeled=text)
    assert not index.problems
    assert names(index.labeled) == ["JPEGImages/1", "JPEGImages/2", "JPEGImages/3 x"]
    assert [i.masks[0].name for i in index.labeled] == ["1.png", "2.png", "3 x.png"]


def test_unlabeled_lines_need_no_mask(tmp_path):
    touch(tmp_path, "im/1.png", "im/2.png", "im/3.png", "im/4.png", "m/1.png")
    index = lists(tmp_path, labeled="im/1.png m/1.png", unlabeled="im/2.png None\nim/3.png\nim/4.png m/gone.png")
    assert not index.problems and [i.masks for i in index.unlabeled] == [(), (), ()]


def test_label_folders_with_lists(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "masks/x/a.png", "masks/y/a.png")
    index = lists(tmp_path, labeled="a", unlabeled="b")
    assert index.labels == ("x", "y") and len(index.labeled[0].masks) == 2 and not index.problems


@pytest.mark.parametrize(
    "files, code, level, says",
    [
        ({"labeled": "a\nb\nzz"}, "D18", "error", "'zz'"),
        ({"labeled": "a\na\nb"}, "D19", "warning", "more than once"),
        ({"labeled": "a", "unlabeled": "b\na"}, "D19", "warning", "stays labeled"),
        ({"labeled": "a", "test": "a"}, "D19", "error", "splits/labeled.txt"),
        ({"labeled": "a\nc"}, "D01", "error", "unlabeled.txt"),
        ({"labeled": b"\xff\xfe\x00a"}, "D19", "error", "UTF-8"),
        ({"labeled": "../x.png"}, "D19", "error", "out of the folder"),
        ({"labeled": ""}, "D04", "error", "lists no images"),
        ({"val": "a"}, "D19", "error", "no labeled.txt"),
    ],
)
def test_what_is_wrong_with_a_list(tmp_path, files, code, level, says):
    touch(tmp_path, "images/a.png", "images/b.png", "images/c.png", "masks/a.png", "masks/b.png")
    problems = lists(tmp_path, **files).problems
    assert [(p.code, p.level) for p in problems] == [(code, level)]
    assert says in str(problems[0]) and problems[0].fix


def test_choose_labels_in_lists_is_nested():
    index = Index(root="r", layout="lists", labeled=items("d", "a", "c", "b"), unlabeled=items("x"))
    for n in (1, 2, 3):
        chosen = choose_labels(index, n, lambda item: "")
        assert names(chosen.labeled) == ["d", "a", "c", "b"][:n]
        assert names(chosen.unlabeled) == sorted([*"dacb"[n:], "x"])
        assert all(item.masks for item in chosen.unlabeled)
    assert choose_labels(index, 0.5, lambda item: "").counts()["labeled"] == 2
    assert choose_labels(index, "all", lambda item: "") == choose_labels(index, None, lambda item: "") == index


def test_choose_labels_in_folders_follows_content_not_order():
    index = Index(root="r", labeled=items("a", "b", "c"))
    digest = {"a": "9", "b": "1", "c": "5"}
    assert names(choose_labels(index, 2, lambda item: digest[item.name]).labeled) == ["b", "c"]


@pytest.mark.parametrize("labels", [0, -1, 5, 1.0, 1.5, 0.0, "some", True])
def test_impossible_labels_are_refused_with_the_largest_legal(labels):
    index = Index(root="r", labeled=items(*"abcd"))
    with pytest.raises(Refusal, match="1 to 4") as caught:
        choose_labels(index, labels, lambda item: "")
    assert caught.value.exit == 2


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.integers(0, 9).map(str), max_size=30),
    st.integers(0, 5),
)
def test_carved_val_depends_on_labeled_content_only(digests, extra):
    index = Index(root="r", labeled=items(*sorted(digests)))
    carved = carve_val(index, digests)
    if len(digests) < 5 or len(set(digests.values())) < 2:
        assert carved.val == [] and carved.val_source == "none" and carved.labeled == index.labeled
        return
    assert carved.val_source == "carved" and len(carved.val) >= max(1, round(0.2 * len(digests)))
    assert sorted(names(carved.val) + names(carved.labeled)) == sorted(digests) and carved.labeled
    sides = {digests[i.name] for i in carved.val} & {digests[i.name] for i in carved.labeled}
    assert not sides  # equal images on one side
    more = Index(root="r", labeled=index.labeled[::-1], unlabeled=items(*(f"u{k}" for k in range(extra))))
    assert carve_val(more, {**digests, **{f"u{k}": str(k) for k in range(extra)}}).val == carved.val


def test_carved_val_leaves_every_class_a_labeled_image():
    index = Index(root="r", labeled=items(*"abcde"))
    digests = dict(zip("abcde", "12345", strict=True))
    classes = {n: frozenset({0}) for n in "bcde"} | {"a": frozenset({0, 1})}
    assert names(carve_val(index, digests).val) == ["a"]
    assert names(carve_val(index, digests, classes=classes).val) == ["b"]
    each = {n: frozenset({k}) for k, n in enumerate("abcde")}
    assert names(carve_val(index, digests, classes=each).val) == ["a"]


def test_a_given_val_is_kept():
    index = Index(root="r", labeled=items(*"abcdef"), val=items("v"), val_source="given")
    assert carve_val(index, dict.fromkeys("abcdefv", "0")) is index

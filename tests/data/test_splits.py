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


def test_a_line_with_a_space_is_that_file_where_there_is_one(tmp_path):
    """And no pair of "cell" and "2.png"."""
    touch(tmp_path, "images/cell.png", "images/cell 2.png", "masks/cell.png")
    index = lists(tmp_path, labeled="cell.png", unlabeled="cell 2.png")
    assert not index.problems
    assert names(index.labeled) == ["cell"] and names(index.unlabeled) == ["cell 2"]


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


PASCAL = ("JPEGImages/2007_000001.jpg", "JPEGImages/2007_000002.jpg", "JPEGImages/2007_000003.jpg")
CITY = "aachen/aachen_000000_000019"


@pytest.mark.parametrize("masks", ["SegmentationClass", "SegmentationClassAug"])
def test_bare_ids_of_pascal_as_in_u2pl(tmp_path, masks):
    touch(tmp_path, *PASCAL, f"{masks}/2007_000001.png", f"{masks}/2007_000003.png")
    index = lists(tmp_path, labeled="2007_000001\n", unlabeled="2007_000002", val="2007_000003")
    assert not index.problems and names(index.labeled) == ["JPEGImages/2007_000001"]
    assert index.labeled[0].masks == (tmp_path / f"{masks}/2007_000001.png",)
    assert index.unlabeled[0].masks == () and len(index.val[0].masks) == 1
    pairs = lists_again(tmp_path, labeled=f"JPEGImages/2007_000001.jpg {masks}/2007_000001.png")
    assert pairs.labeled == index.labeled  # the same image by the list of another family


def lists_again(root, **files):
    import shutil

    shutil.rmtree(root / "splits")
    return lists(root, **files)


def test_image_paths_of_cityscapes_as_in_u2pl(tmp_path):
    image, mask = f"leftImg8bit/train/{CITY}_leftImg8bit.png", f"gtFine/train/{CITY}_gtFine_labelTrainIds.png"
    free = "leftImg8bit/train_extra/bonn/bonn_1_leftImg8bit.png"
    touch(tmp_path, image, mask, mask.replace("labelTrainIds", "color"), free)
    index = lists(tmp_path, labeled=image, unlabeled=f"{free} None")
    assert not index.problems and index.labeled[0].masks == (tmp_path / mask,) and index.unlabeled[0].masks == ()
    assert lists_again(tmp_path, labeled=f"{image} {mask}").labeled == index.labeled


def test_lists_of_cps_start_with_a_slash_and_have_a_tab(tmp_path):
    touch(tmp_path, "images/train/a.png", "images/train/b.png", "segmentation/train/a.png", "segmentation/train/b.png")
    line = "/images/train/{0}.png\t/segmentation/train/{0}.png"
    index = lists(tmp_path, labeled=line.format("a"), unlabeled=line.format("b"))
    assert not index.problems and names(index.labeled) == ["train/a"]
    assert index.labeled[0].masks == (tmp_path / "segmentation/train/a.png",)


def test_folders_of_coco_and_ade20k_in_lists(tmp_path):
    coco, ade = tmp_path / "coco", tmp_path / "ade"
    touch(coco, "train2017/1.jpg", "train2017/2.jpg", "val2017/3.jpg", "masks/1.png", "masks/3.png")
    index = lists(coco, labeled="train2017/1.jpg masks/1.png", unlabeled="train2017/2.jpg masks/2.png",
                  val="val2017/3.jpg masks/3.png")  # fmt: skip
    assert not index.problems and names(index.val) == ["val2017/3"] and index.labels == ()
    image, mask = "images/training/ADE_train_1.jpg", "annotations/training/ADE_train_1.png"
    touch(ade, image, mask)
    index = lists(ade, labeled=f"{image} {mask}")
    assert not index.problems and index.labeled[0].masks == (ade / mask,)


def test_a_misspelt_folder_that_no_list_uses_is_still_named(tmp_path):
    touch(tmp_path, "images/a.png", "masks/a.png", "unlabelled/b.png")
    assert [p.code for p in lists(tmp_path, labeled="a").problems] == ["D31"]


def test_label_folders_with_lists(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "masks/x/a.png", "masks/y/a.png")
    index = lists(tmp_path, labeled="a", unlabeled="b")
    assert index.labels == ("x", "y") and len(index.labeled[0].masks) == 2 and not index.problems


def test_a_mask_in_some_label_folders_matters_where_masks_are_used_only(tmp_path):
    touch(tmp_path, *(f"images/{n}.png" for n in "abc"), *(f"masks/{k}/a.png" for k in "xy"), "masks/x/b.png")
    index = lists(tmp_path, labeled="a", unlabeled="images/b.png None\nc")
    assert not index.problems and names(index.unlabeled) == ["b", "c"] and index.unlabeled[0].masks == ()
    for files in ({"labeled": "a\nb"}, {"labeled": "a", "val": "b"}, {"labeled": "a", "test": "b"}):
        (problem,) = (p for p in lists_again(tmp_path, **files, unlabeled="c").problems)
        assert (problem.code, problem.where) == ("D36", (tmp_path / "masks/x/b.png").as_posix())


def test_images_that_no_list_names_are_said_once_with_their_number(tmp_path):
    touch(tmp_path, *(f"images/{n}.png" for n in "abcdefg"), *(f"masks/{n}.png" for n in "abc"))
    index = lists(tmp_path, labeled="a\nimages/b.png masks/b.png", val="c.png", unlabeled="d None")
    (problem,) = index.problems
    assert (problem.code, problem.level) == ("D31", "warning") and "splits/unlabeled.txt" in problem.fix
    assert "3 images" in problem.found and "images/e.png, images/f.png, images/g.png" in problem.found
    assert not lists_again(tmp_path, labeled="a\nb", val="c", unlabeled="d\ne\nf\ng").problems


def test_labeled_images_may_be_missing_where_another_split_is_wanted(tmp_path):
    touch(tmp_path, "images/a.png", "masks/a.png")
    assert [p.code for p in lists(tmp_path, test="a").problems] == ["D19"]
    index = find(tmp_path, wanted="test")
    assert not index.problems and names(index.test) == ["a"] and not index.labeled
    assert [p.code for p in find(tmp_path, wanted="val").problems] == ["D19"]


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
    problems = [p for p in lists(tmp_path, **files).problems if p.code != "D31"]  # of images that no list names
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

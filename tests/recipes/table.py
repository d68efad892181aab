"""What the papers, configurations and logs say, one row a setting: the recipes are checked against it, word for word.

Columns: recipe, method, network, crop, batch, budget ("80e" epochs, "400s" steps), learning rate, multiple for the
head, loss, other settings. Batches are labeled+unlabeled. Scores follow in SCORES, in the order of the lists.
"""

NETWORKS = {
    "50/16": "deeplabv3plus:16/resnet50s.gluon_in1k", "101/16": "deeplabv3plus:16/resnet101s.gluon_in1k",
    "50/8": "deeplabv3plus:8/resnet50s.gluon_in1k", "101/8": "deeplabv3plus:8/resnet101s.gluon_in1k",
    "X65": "deeplabv3plus:16/xception65", "S": "dpt:64/vit_small_patch14_dinov2.lvd142m",
    "B": "dpt:128/vit_base_patch14_dinov2.lvd142m", "L": "dpt:256/vit_large_patch14_dinov2.lvd142m",
}  # fmt: skip
SCENES = {"weights": "imagenet", "turn": False}
SGD = SCENES | {"optimizer": "sgd", "weight_decay": 1e-4, "schedule": "poly", "lr_warmup": 0, "clip": 0}
ADAMW = {**SGD, "optimizer": "adamw", "weight_decay": 0.01}
SCRATCH = {"optimizer": "adamw", "weight_decay": 0.0333, "schedule": "constant", "lr_warmup": 0, "clip": 0, "eps": 1e-7}

SHORT = {
    "@ohem769": "ohem_kept=.0846",
    "@ohem798": "ohem_kept=.157",
    "@ohem800": "ohem_kept=.0781",
    "@imas": "threshold=.7 weight=3 weight_decay=5e-4 ignore_background=0 alone=.0042",
    "@voc-imas": "threshold=.95 weight=3 ignore_background=1 alone=.0125",
    "@u2pl": "unreliable=.2 contrast=1 anchors=256 negatives=50 temperature=.5 sure=.3 low_rank=3 high_rank=20 mix=.5 "
             "bank=30000 two_pass=1 ema=.99",
    "@u2pl-voc": "warmup=.0125 alone=.025",
    "@u2pl-city": "warmup=0 alone=.005",
    "@fixmatch-ema": "masked=0 spread=0 ema=.996",
}  # fmt: skip

RESNETS = """
unimatch-pascal-r101-321      unimatch      101/16 321 8+8   80e  .001  10 ce   threshold=.95
unimatch-pascal-r50-321       unimatch      50/16  321 8+8   80e  .001  10 ce   threshold=.95
unimatch-pascal-r101-513      unimatch      101/16 513 8+8   80e  .001  10 ce   threshold=.95
unimatch-pascal-r50-513       unimatch      50/16  513 8+8   80e  .001  10 ce   threshold=.95
unimatch-pascal-r101-513-blender unimatch   101/16 513 8+8   80e  .001  10 ce   threshold=.95
unimatch-pascal-r50-513-blender  unimatch   50/16  513 8+8   80e  .001  10 ce   threshold=.95
fixmatch-pascal-r101-513-blender fixmatch   101/16 513 8+8   80e  .001  10 ce   threshold=.95
fixmatch-pascal-r50-513-blender  fixmatch   50/16  513 8+8   80e  .001  10 ce   threshold=.95
supervised-pascal-r101        supervised    101/16 321 16    80e  .001  10 ce
supervised-pascal-r50         supervised    50/16  321 16    80e  .001  10 ce
unimatch-cityscapes-r101      unimatch      101/16 801 8+8   240e .005  1  ohem threshold=0
unimatch-cityscapes-r50       unimatch      50/16  801 8+8   240e .005  1  ohem threshold=0
fixmatch-cityscapes-r101      fixmatch      101/16 801 8+8   240e .005  1  ohem threshold=0
fixmatch-cityscapes-r50       fixmatch      50/16  801 8+8   240e .005  1  ohem threshold=0
supervised-cityscapes-r101    supervised    101/16 801 16    240e .005  1  ohem ohem_kept=.0779
supervised-cityscapes-r50     supervised    50/16  801 16    240e .005  1  ohem ohem_kept=.0779
unimatch-coco-x65             unimatch      X65    513 8+8   30e  .004  10 ce   threshold=.95
u2pl-pascal-r101-513          u2pl          101/8  513 16+16 80e  .001  10 ce   @u2pl @u2pl-voc
u2pl-pascal-r101-513-blender  u2pl          101/8  513 16+16 80e  .001  10 ce   @u2pl @u2pl-voc
u2pl-pascal-r50-513-blender   u2pl          50/8   513 16+16 80e  .001  10 ce   @u2pl @u2pl-voc
u2pl-cityscapes-r101          u2pl          101/8  769 16+16 200e .01   1  ohem @ohem769 weight_decay=5e-4 @u2pl @u2pl-city
u2pl-cityscapes-r50           u2pl          50/8   769 16+16 200e .01   1  ohem @ohem769 weight_decay=5e-4 @u2pl @u2pl-city
imas-pascal-r101-513          imas          101/16 513 16+16 80e  .001  10 ce   @voc-imas
imas-pascal-r50-513           imas          50/16  513 16+16 80e  .001  10 ce   @voc-imas
imas-pascal-r101-513-stride8  imas          101/8  513 16+16 80e  .001  10 ce   @voc-imas
imas-pascal-r50-513-stride8   imas          50/8   513 16+16 80e  .001  10 ce   @voc-imas
imas-cityscapes-r50-stride8   imas          50/8   769 16+16 240e .01   1  ohem @ohem769 @imas
imas-cityscapes-r50-stride16  imas          50/16  769 16+16 240e .01   1  ohem ohem_kept=0.0423 @imas
cps-pascal-r50                cps           50/16  512 8+8   32e  .0025 1  ce   weight=1
cps-pascal-r101               cps           101/16 512 8+8   32e  .0025 1  ce   weight=1
cps-cityscapes-r50            cps           50/16  800 8+8   128e .02   1  ohem @ohem800 weight=5
fpl-pascal-r101               fpl           101/16 512 8+8   40e  .0025 1  ce   weight=1 mass=.9 pixels=none
fpl-cityscapes-r101           fpl           101/16 800 8+8   140e .02   1  ohem @ohem800 weight=5 mass=.9 pixels=concave
csl-pascal-r101               csl           101/8  321 8+8   80e  .001  10 ce   alpha=8
csl-cityscapes-r101           csl           101/8  801 8+8   240e .005  1  ohem alpha=8
im-supervised-cityscapes-r50  supervised+im 50/16  801 8+8   240e .005  1  ohem
im-unimatch-cityscapes-r50    unimatch+im   50/16  801 8+8   240e .005  1  ohem threshold=0
im-u2pl-cityscapes-r50        u2pl+im       50/8   769 16+16 200e .01   1  ohem @ohem769 weight_decay=5e-4 @u2pl @u2pl-city
im-imas-cityscapes-r50        imas+im       50/16  769 16+16 240e .01   1  ohem ohem_kept=0.0423 @imas
"""
VITS = """
unimatch_v2-pascal-dinov2s            unimatch_v2    S 518 16+16 60e    ce   threshold=.95
unimatch_v2-pascal-dinov2b            unimatch_v2    B 518 16+16 60e    ce   threshold=.95
unimatch_v2-pascal-dinov2l            unimatch_v2    L 518 16+16 60e    ce   threshold=.95
unimatch_v2-pascal-dinov2s-frozen     unimatch_v2    S 518 16+16 60e    ce   threshold=.95 freeze=1
unimatch_v2-pascal-dinov2b-frozen     unimatch_v2    B 518 16+16 60e    ce   threshold=.95 freeze=1
unimatch_v2-cityscapes-dinov2s        unimatch_v2    S 798 8+8   180e   ohem @ohem798 threshold=.95
unimatch_v2-cityscapes-dinov2b        unimatch_v2    B 798 8+8   180e   ohem @ohem798 threshold=.95
unimatch_v2-cityscapes-dinov2s-frozen unimatch_v2    S 798 8+8   180e   ohem @ohem798 threshold=.95 freeze=1
unimatch_v2-cityscapes-dinov2b-frozen unimatch_v2    B 798 8+8   180e   ohem @ohem798 threshold=.95 freeze=1
unimatch_v2-ade20k-dinov2s            unimatch_v2    S 518 8+8   60e    ce   threshold=.95
unimatch_v2-ade20k-dinov2b            unimatch_v2    B 518 8+8   60e    ce   threshold=.95
unimatch_v2-ade20k-dinov2b-frozen     unimatch_v2    B 518 8+8   60e    ce   threshold=.95 freeze=1
unimatch_v2-ade20k-dinov2l            unimatch_v2    L 518 8+8   60e    ce   threshold=.95
unimatch_v2-coco-dinov2s              unimatch_v2    S 518 16+16 20e    ce   threshold=.95
unimatch_v2-coco-dinov2b              unimatch_v2    B 518 16+16 20e    ce   threshold=.95
fixmatch-pascal-dinov2b               maskmatch      B 518 16+16 60e    ce   threshold=.95 @fixmatch-ema
fixmatch-ade20k-dinov2b               maskmatch      B 518 8+8   60e    ce   threshold=.95 @fixmatch-ema
fixmatch-coco-dinov2b                 maskmatch      B 518 16+16 20e    ce   threshold=.95 @fixmatch-ema
supervised-pascal-dinov2s             supervised     S 518 32    5580s  ce
supervised-pascal-dinov2b             supervised     B 518 32    5580s  ce
supervised-cityscapes-dinov2s         supervised     S 798 16    33660s ohem ohem_kept=.0785
supervised-cityscapes-dinov2b         supervised     B 798 16    33660s ohem ohem_kept=.0785
supervised-ade20k-dinov2s             supervised     S 518 16    22500s ce
supervised-ade20k-dinov2b             supervised     B 518 16    22500s ce
supervised-coco-dinov2s               supervised     S 518 32    18740s ce
supervised-coco-dinov2b               supervised     B 518 32    18740s ce
supervised-pascal-dinov2s-all         supervised     S 518 32    60e    ce
supervised-pascal-dinov2b-all         supervised     B 518 32    60e    ce
supervised-ade20k-dinov2s-all         supervised     S 518 16    60e    ce
supervised-ade20k-dinov2b-all         supervised     B 518 16    60e    ce
supervised-coco-dinov2s-all           supervised     S 518 32    20e    ce
supervised-coco-dinov2b-all           supervised     B 518 32    20e    ce
segkc-pascal-dinov2s                  segkc          S 518 16+16 60e    ce   threshold=.95 senior=B
segkc-cityscapes-dinov2s              segkc          S 798 8+8   180e   ohem @ohem798 threshold=.95 senior=B
im-unimatch_v2-cityscapes-dinov2s     unimatch_v2+im S 798 8+8   180e   ohem @ohem798 threshold=.95
im-segkc-cityscapes-dinov2s           segkc+im       S 798 8+8   180e   ohem @ohem798 threshold=.95 senior=B
"""
STUDY = """
isic          unet1x1:0.5 256 mse 4050s
hela          unet1x1:1.0 256 mse 50e
suim          unet1x1:1.0 256 ce  4250s
cityscapes208 unet1x1:1.0 208 ce  4600s
"""
"""Data set, network, crop, loss, and the steps of students: 50 epochs of all images at 32 a step."""

SCORES = {
    "unimatch-pascal-r101-321": "75.2 77.2 78.8 79.9 81.2 77.0 77.4 77.4",
    "unimatch-pascal-r50-321": "71.9 72.5 76.0 77.4 78.7",
    "unimatch-pascal-r101-513": "80.9 81.9 80.4",
    "unimatch-pascal-r50-513": "78.1 79.0 79.1",
    "unimatch-pascal-r101-513-blender": "78.1 78.4 79.2",
    "unimatch-pascal-r50-513-blender": "75.8 76.9 76.8",
    "fixmatch-pascal-r101-513-blender": "74.3 76.3 76.9",
    "fixmatch-pascal-r50-513-blender": "70.6 73.9 75.1",
    "supervised-pascal-r101": "45.1 55.3 64.8 69.7 73.5",
    "supervised-pascal-r50": "44.0 52.3 61.7 66.7 72.9",
    "unimatch-cityscapes-r101": "76.6 77.9 79.2 79.5",
    "unimatch-cityscapes-r50": "75.0 76.8 77.5 78.6",
    "fixmatch-cityscapes-r101": "74.2 76.2 77.2 78.4",
    "fixmatch-cityscapes-r50": "72.6 75.7 76.8 78.2",
    "supervised-cityscapes-r101": "66.3 72.8 75.0 78.0",
    "supervised-cityscapes-r50": "63.3 70.2 73.1 76.6",
    "unimatch-coco-x65": "31.9 38.9 44.4 48.2 49.8",
    "u2pl-pascal-r101-513": "67.98 69.15 73.66 76.16 79.49 77.21 79.01 79.30 80.50",
    "u2pl-pascal-r101-513-blender": "74.4 77.6 78.7",
    "u2pl-pascal-r50-513-blender": "72.0 75.2 76.2",
    "u2pl-cityscapes-r101": "70.30 74.37 76.47 79.05",
    "u2pl-cityscapes-r50": "69.03 73.02 76.31 78.64",
    "imas-pascal-r101-513": "68.8 74.4 77.5 79.7 81.2 76.5 77.9 78.1",
    "imas-pascal-r50-513": "74.8 76.2 77.0",
    "imas-pascal-r101-513-stride8": "77.2 78.4 79.3",
    "imas-pascal-r50-513-stride8": "75.9 76.7 77.1",
    "imas-cityscapes-r50-stride8": "75.2 78.0 78.2 80.2",
    "imas-cityscapes-r50-stride16": "74.3 77.4 78.2 79.3",
    "cps-pascal-r50": "72.0 73.7 74.9",
    "cps-pascal-r101": "74.5 76.4 77.7",
    "cps-cityscapes-r50": "74.4 76.6 77.8 78.8",
    "fpl-pascal-r101": "",
    "fpl-cityscapes-r101": "",
    "csl-pascal-r101": "",
    "csl-cityscapes-r101": "",
    "im-supervised-cityscapes-r50": "72.53 74.47 77.95 78.78",
    "im-unimatch-cityscapes-r50": "74.10 77.38 78.58 79.60",
    "im-u2pl-cityscapes-r50": "74.52 76.90 77.77 78.91",
    "im-imas-cityscapes-r50": "75.15 77.45 78.43 79.41",
    "unimatch_v2-pascal-dinov2s": "79.03 85.50 85.85 86.69 87.82",
    "unimatch_v2-pascal-dinov2b": "86.29 87.92 88.86 89.98 90.80",
    "unimatch_v2-pascal-dinov2l": "86.44 87.56 90.29 91.13 91.21",
    "unimatch_v2-pascal-dinov2s-frozen": "81.82 83.84 84.02 85.73 86.23",
    "unimatch_v2-pascal-dinov2b-frozen": "84.64 87.22 87.44 88.51 90.17",
    "unimatch_v2-cityscapes-dinov2s": "80.55 81.86 82.39 82.61",
    "unimatch_v2-cityscapes-dinov2b": "83.60 84.30 84.51 85.14",
    "unimatch_v2-cityscapes-dinov2s-frozen": "75.06 77.07 78.20 78.55",
    "unimatch_v2-cityscapes-dinov2b-frozen": "79.83 81.40 81.87 82.84",
    "unimatch_v2-ade20k-dinov2s": "31.48 38.10 40.69 44.41 45.76",
    "unimatch_v2-ade20k-dinov2b": "38.70 45.00 46.67 49.84 52.02",
    "unimatch_v2-ade20k-dinov2b-frozen": "35.6 47.3",
    "unimatch_v2-ade20k-dinov2l": "40.0 45.0 49.3 52.1 54.2",
    "unimatch_v2-coco-dinov2s": "39.33 45.41 53.17 54.99 57.01",
    "unimatch_v2-coco-dinov2b": "47.93 55.84 58.66 60.42 63.31",
    "fixmatch-pascal-dinov2b": "83.83 87.37 88.21 89.88 90.21",
    "fixmatch-ade20k-dinov2b": "37.8 43.2 46.4 49.5 51.0",
    "fixmatch-coco-dinov2b": "46.7 53.7 57.4",
    "supervised-pascal-dinov2s": "66.98 75.63 81.82 83.69 85.56",
    "supervised-pascal-dinov2b": "76.86 82.07 85.27 87.15 88.30",
    "supervised-cityscapes-dinov2s": "77.15 80.22 81.69 82.42 83.76",
    "supervised-cityscapes-dinov2b": "80.79 82.65 83.98 84.39 85.21",
    "supervised-ade20k-dinov2s": "26.1 32.7 37.1 39.8 42.7",
    "supervised-ade20k-dinov2b": "32.1 39.3 42.8 46.4 49.0",
    "supervised-coco-dinov2s": "29.4 35.6 44.6 49.2 52.0",
    "supervised-coco-dinov2b": "36.8 45.8 52.1 56.2 59.5",
    "supervised-pascal-dinov2s-all": "85.0",
    "supervised-pascal-dinov2b-all": "86.5",
    "supervised-ade20k-dinov2s-all": "49.0",
    "supervised-ade20k-dinov2b-all": "54.1",
    "supervised-coco-dinov2s-all": "62.7",
    "supervised-coco-dinov2b-all": "66.4",
    "segkc-pascal-dinov2s": "87.1 89.2 89.8",
    "segkc-cityscapes-dinov2s": "80.98 82.43 82.87 83.05",
    "im-unimatch_v2-cityscapes-dinov2s": "80.97 81.93 82.59 83.07",
    "im-segkc-cityscapes-dinov2s": "81.61 82.80 83.14 83.31",
    "scratch-isic": "67.1 70.3 68.4 65.7 66.1 67.5 64.0",
    "scratch-hela": "9.9 42.6 30.6 3.6 13.8 22.6 7.7",
    "scratch-suim": "35.7 36.1 25.7 36.5 33.7 36.6 26.5",
    "scratch-cityscapes208": "32.0 36.6 15.2 34.7 35.2 35.5 24.3",
    "scratch-isic-augmented": "72.4",
    "scratch-hela-augmented": "3.3",
    "scratch-suim-augmented": "43.2",
    "scratch-cityscapes208-augmented": "37.4",
    "scratch-isic-im": "72.3",
    "scratch-hela-im": "2.8",
    "scratch-suim-im": "44.3",
    "scratch-cityscapes208-im": "40.7",
    "scratch-isic-ensemble": "69.0",
    "scratch-hela-ensemble": "3.9",
    "scratch-suim-ensemble": "37.1",
    "scratch-cityscapes208-ensemble": "35.0",
    "scratch-isic-full": "75.1",
    "scratch-isic-full-augmented": "77.3",
    "scratch-hela-full": "2.5",
    "scratch-hela-full-augmented": "2.4",
    "scratch-suim-full": "51.7",
    "scratch-suim-full-augmented": "52.7",
    "scratch-cityscapes208-full": "45.6",
    "scratch-cityscapes208-full-augmented": "45.8",
}
UNLABELED = {"pascal 92": 10490, "pascal 1464": 9118, "pascal 662": 9920, "cityscapes 186": 2789, "coco 232": 118055}
UPDATES = [
    ("unimatch-pascal-r101-321", "pascal 92", 104_880), ("unimatch_v2-pascal-dinov2s", "pascal 92", 39_300),
    ("imas-pascal-r101-513", "pascal 92", 52_400), ("unimatch_v2-cityscapes-dinov2s", "cityscapes 186", 62_640),
    ("cps-pascal-r50", "pascal 662", 39_680), ("unimatch_v2-coco-dinov2b", "coco 232", 147_560),
]  # fmt: skip
"""Images without labels in the authors' lists, and the optimiser steps that their logs and read-mes give."""


def rows():
    """{recipe: its keys and values} of every line above."""
    table = {}
    for line in RESNETS.split("\n"):
        if line:
            name, method, net, size, batch, budget, lr, head, loss, *more = line.split()
            table[name] = SGD | _row(method, net, size, batch, budget, loss, more)
            table[name] |= {"lr": float(lr), "head_lr": float(head)} | _more(more)
    for line in VITS.split("\n"):
        if line:
            name, method, net, size, batch, budget, loss, *more = line.split()
            table[name] = ADAMW | _row(method, net, size, batch, budget, loss, more) | {"lr": 5e-6, "head_lr": 40.0}
    for line in STUDY.split("\n"):
        if line:
            table |= _study(*line.split())
    return table


def _row(method, net, size, batch, budget, loss, more):
    labeled, _, unlabeled = batch.partition("+")
    row = {"method": method, "network": NETWORKS[net], "size": int(size), "batch": int(labeled), "loss": loss}
    if unlabeled:
        row["unlabeled_batch"] = int(unlabeled)
    return row | _budget(budget) | _more(more)


def _budget(text):
    return {"epochs" if text[-1] == "e" else "steps": int(text[:-1])}


def _more(pairs):
    found = {}
    for pair in " ".join(SHORT.get(pair, pair) for pair in pairs).split():
        key, value = pair.split("=")
        found[key] = NETWORKS.get(value, value if value.isalpha() else float(value))
    return found


def _study(data, net, size, loss, budget):
    base = SCRATCH | {"network": net, "size": int(size), "loss": loss, "lr": 0.003, "augment": "none"}
    if data != "hela":
        base["resize"] = int(size)
    alone = base | {"method": "supervised", "batch": 32, "epochs": 50}
    pool = base | {"batch": 32} | _budget("56e" if data == "hela" else budget)
    full = alone | {"oracle": True}
    ten = {"augment": "default", "epochs": 500, "turn": data in ("isic", "hela")}
    loops = {"members": 2, "generations": 5, "students": 5}
    discs = {"im.discs": "pos"} if data == "hela" else {}
    return {
        f"scratch-{data}": alone,
        f"scratch-{data}-augmented": alone | ten,
        f"scratch-{data}-full": full,
        f"scratch-{data}-full-augmented": full | ten,
        f"scratch-{data}-im": pool
        | {"method": "im", "im.preset": "paper", **{f"im.{k}": v for k, v in loops.items()}, **discs},
        f"scratch-{data}-ensemble": pool
        | {"method": "ensemble", "ensemble.preset": "paper", **{f"ensemble.{k}": v for k, v in loops.items()}},
    }

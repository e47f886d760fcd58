#!/usr/bin/env python3
"""The recipe that build/bench/augment renders, as torchvision and Pillow users run it, on one thread.

    augment_peer.py DIR [GLOBAL_SIZE LOCALS LOCAL_SIZE]     every JPEG below DIR, at most 250

Decodes, renders 2 + LOCALS views and normalises them to float tensors. Prints one JSON line; like its counterpart it
counts processor time, the best of several passes. Needs torch, torchvision and Pillow.
"""
import json
import random
import sys
import time
from io import BytesIO
from pathlib import Path

import PIL
import torch
import torchvision
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms as T

PASSES = 3


def blur(im):
    return im.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def view(size, scale, blurred, solarized=0.0):
    last = [T.RandomApply([T.Lambda(ImageOps.solarize)], p=solarized)] if solarized else []
    return T.Compose([
        T.RandomResizedCrop(size, scale=scale, interpolation=T.InterpolationMode.BICUBIC),
        T.RandomHorizontalFlip(),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
        T.RandomGrayscale(p=0.2),
        T.RandomApply([T.Lambda(blur)], p=blurred),
        *last,
        T.ToTensor(),
        T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])


def main():
    size, local, small = (int(x) for x in sys.argv[2:5]) if len(sys.argv) > 4 else (224, 10, 96)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    files = sorted(p for p in Path(sys.argv[1]).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    random.Random(0).shuffle(files)
    images = [p.read_bytes() for p in files[:250]]
    views = [view(size, (0.4, 1.0), 1.0), view(size, (0.4, 1.0), 0.1, 0.2)] + [view(small, (0.05, 0.4), 0.5)] * local
    best = 0.0
    for _ in range(PASSES):
        start = time.process_time()
        for encoded in images:
            im = Image.open(BytesIO(encoded)).convert("RGB")
            for v in views:
                v(im)
        best = max(best, len(images) / (time.process_time() - start))
    print(json.dumps({"bench": "augment-peer", "views": f"2x{size}+{local}x{small}", "images": len(images),
                      "images_per_s": round(best, 1), "views_per_s": round(best * (2 + local), 1),
                      "torchvision": torchvision.__version__, "pillow": PIL.__version__}))


if __name__ == "__main__":
    main()

"""Fine-tunes the last layers of both towers, as the study does; written plainly with PyTorch.

Trained: `visual.layer4`, `visual.attnpool` and the last two text blocks. Frozen: all else, with
`ln_final`, `text_projection` and `logit_scale`. BatchNorm always normalises by its stored statistics;
whether its weights and biases in layer4 train is `affine`.
"""

import torch
import torch.nn.functional as F

SCALE, RATE = 50.0, 5e-4


def trained(model, affine=True):
    """The parameters to train, by name; all others are frozen here."""
    names = ("visual.layer4.", "visual.attnpool.", *(f"transformer.resblocks.{k}." for k in (1, 2)))
    chosen = {}
    for name, parameter in model.named_parameters():
        norm = ".bn" in name or ".downsample.1." in name
        parameter.requires_grad = name.startswith(names) and (affine or not norm)
        if parameter.requires_grad:
            chosen[name] = parameter
    return chosen


def unit(features):
    return features / (features.norm(dim=-1, keepdim=True) + 1e-6)


@torch.no_grad()
def trunk(model, pixels):
    """What `layer3` gives for images: nothing below it trains."""
    visual = model.visual.eval()
    return torch.cat([visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels[i:i + 200]))))
                      for i in range(0, len(pixels), 200)])


def tail(model, features):
    return model.visual.attnpool(model.visual.layer4(features))


def optimizer(parameters):
    return torch.optim.AdamW(parameters.values(), lr=RATE, betas=(.9, .999), eps=1e-8, weight_decay=0.0)


def loss_of(model, features, labels, encode_text):
    """Cross entropy of a batch of trunk features against the class prompts."""
    logits = SCALE * unit(tail(model, features)) @ unit(encode_text()).T
    return F.cross_entropy(logits, labels)

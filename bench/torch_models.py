"""ResNet, 3D U-Net, BERT and the small classifiers in plain PyTorch: the peers of the zoo's, with the same parameter names. tests/python/test_zoo.py
holds both to the same outputs and gradients.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def mlp(features, width=256, layers=2, classes=10):
    sizes = [features] + [width] * layers
    hidden = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], classes))


class Lstm(nn.Module):
    """vocabulary=0: sequences of vectors."""

    def __init__(self, features=0, width=128, layers=1, vocabulary=0, classes=10):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width) if vocabulary else None
        self.lstm = nn.LSTM(width if vocabulary else features, width, layers, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        y, _ = self.lstm(x if self.embedding is None else self.embedding(x))
        return self.head(y[:, -1])


class Transformer(nn.Module):
    def __init__(self, steps, features, width=128, layers=2, heads=4, classes=10):
        super().__init__()
        self.position = nn.Parameter(torch.randn(steps, width) * 0.02)
        self.input = nn.Linear(features, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.encoder(self.input(x) + self.position).mean(1))


def _conv(inputs, outputs, kernel, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class _Block(nn.Module):
    """Convolutions of (outputs, kernel, stride), each with a batch norm, beside the shortcut."""

    def __init__(self, inputs, convolutions):
        super().__init__()
        self.count = len(convolutions)
        self.downsample = None
        channels, stride = inputs, math.prod(s for _, _, s in convolutions)
        for i, (outputs, kernel, s) in enumerate(convolutions, 1):
            setattr(self, f"conv{i}", _conv(channels, outputs, kernel, s))
            setattr(self, f"bn{i}", nn.BatchNorm2d(outputs))
            channels = outputs
        self.relu = nn.ReLU(inplace=True)
        if stride != 1 or channels != inputs:
            self.downsample = nn.Sequential(_conv(inputs, channels, 1, stride), nn.BatchNorm2d(channels))

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.count:
                y = self.relu(y)
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNet(nn.Module):
    """The last norm of each residual branch starts as `last_norm`."""

    def __init__(self, depths, bottleneck, channels=3, classes=1000, width=64, last_norm=1.0):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = len(depths)
        inputs = width
        for stage, depth in enumerate(depths):
            w, blocks = width << stage, []
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(_Block(inputs, [(w, 1, 1), (w, 3, stride), (4 * w, 1, 1)] if bottleneck else [(w, 3, stride), (w, 3, 1)]))
                inputs = 4 * w if bottleneck else w
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, _Block):
                nn.init.constant_(getattr(module, f"bn{module.count}").weight, last_norm)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


# Layers: blocks in each stage, and whether they are bottlenecks.
_RESNETS = {18: ([2, 2, 2, 2], False), 34: ([3, 4, 6, 3], False), 50: ([3, 4, 6, 3], True), 101: ([3, 4, 23, 3], True), 152: ([3, 8, 36, 3], True)}


def resnet(layers, blocks=0, **options):
    """ResNet-18 to -152, as the zoo's; `blocks` in each stage rather than the paper's."""
    depths, bottleneck = _RESNETS[layers]
    return ResNet([blocks] * 4 if blocks else depths, bottleneck, **options)


class _Level(nn.Module):
    def __init__(self, inputs, outputs, stride, slope):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.InstanceNorm3d(outputs, affine=True)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.InstanceNorm3d(outputs, affine=True)
        self.slope = slope
        for convolution in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")

    def forward(self, x):
        x = F.leaky_relu(self.norm1(self.conv1(x)), self.slope)
        return F.leaky_relu(self.norm2(self.conv2(x)), self.slope)


class Unet3d(nn.Module):
    def __init__(self, channels=(32, 64, 128), inputs=1, classes=2, slope=0.0, strided=False):
        super().__init__()
        finer, coarser = channels[:-1], channels[1:]
        stride = 2 if strided else 1
        self.encoder = nn.ModuleList([_Level(inputs, channels[0], 1, slope), *(_Level(a, b, stride, slope) for a, b in zip(finer, coarser))])
        self.up = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, 2) for a, b in reversed(list(zip(finer, coarser))))
        self.decoder = nn.ModuleList(_Level(2 * a, a, 1, slope) for a in reversed(finer))
        self.head = nn.Conv3d(channels[0], classes, 1)
        self.strided = strided

    def forward(self, x):
        skips = []
        for i, level in enumerate(self.encoder):
            x = level(F.max_pool3d(x, 2) if i > 0 and not self.strided else x)
            skips.append(x)
        skips.pop()
        for up, level in zip(self.up, self.decoder):
            x = level(torch.cat([skips.pop(), up(x)], 1))
        return self.head(x)


class _Output(nn.Module):
    def __init__(self, inputs, outputs, dropout):
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)
        self.LayerNorm = nn.LayerNorm(outputs, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, residual):
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class _SelfAttention(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.heads, self.rate = heads, dropout

    def forward(self, x, mask):
        n, t, width = x.shape
        q, k, v = (p(x).view(n, t, self.heads, -1).transpose(1, 2) for p in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.rate if self.training else 0.0)
        return y.transpose(1, 2).reshape(n, t, width)


class _Layer(nn.Module):
    def __init__(self, width, heads, feedforward, dropout):
        super().__init__()
        self.attention = nn.ModuleDict({"self": _SelfAttention(width, heads, dropout), "output": _Output(width, width, dropout)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, feedforward)})
        self.output = _Output(feedforward, width, dropout)

    def forward(self, x, mask):
        x = self.attention["output"](self.attention["self"](x, mask), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class _Embeddings(nn.Module):
    def __init__(self, vocabulary, positions, width, dropout):
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens, types):
        types = torch.zeros_like(tokens) if types is None else types
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.word_embeddings(tokens) + self.token_type_embeddings(types) + self.position_embeddings(places)
        return self.dropout(self.LayerNorm(x))


class Bert(nn.Module):
    """vocabulary=0: the layers alone, on vectors."""

    def __init__(self, vocabulary=30522, width=768, layers=12, heads=12, feedforward=None, positions=512, dropout=0.1, pooled=False):
        super().__init__()
        if vocabulary:
            self.embeddings = _Embeddings(vocabulary, positions, width, dropout)
        blocks = [_Layer(width, heads, feedforward or 4 * width, dropout) for _ in range(layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(blocks)})
        if pooled:
            self.pooler = nn.ModuleDict({"dense": nn.Linear(width, width)})
        self.vocabulary, self.pooled = vocabulary, pooled
        self.apply(_initialize)

    def forward(self, x, attention_mask=None, token_type_ids=None):
        if self.vocabulary:
            x = self.embeddings(x, token_type_ids)
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        for layer in self.encoder["layer"]:
            x = layer(x, mask)
        return torch.tanh(self.pooler["dense"](x[:, 0])) if self.pooled else x


class BertClassifier(nn.Module):
    def __init__(self, classes, dropout=0.1, **sizes):
        super().__init__()
        self.bert = Bert(pooled=True, dropout=dropout, **sizes)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.bert.pooler["dense"].out_features, classes)

    def forward(self, *inputs):
        return self.classifier(self.dropout(self.bert(*inputs)))


class BertMaskedLanguage(nn.Module):
    def __init__(self, vocabulary=30522, **sizes):
        super().__init__()
        self.bert = Bert(vocabulary, **sizes)
        width = self.bert.embeddings.LayerNorm.normalized_shape[0]
        transform = nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, eps=1e-12)})
        self.cls = nn.ModuleDict({"predictions": nn.ModuleDict({"transform": transform})})
        self.cls["predictions"].register_parameter("bias", nn.Parameter(torch.zeros(vocabulary)))

    def forward(self, *inputs):
        head = self.cls["predictions"]
        x = head["transform"]["LayerNorm"](F.gelu(head["transform"]["dense"](self.bert(*inputs))))
        return F.linear(x, self.bert.embeddings.word_embeddings.weight, head.bias)


def _initialize(module):
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, 0, 0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)

"""Changes of a network that nothing on the model's patcher tells of, as some packs make them."""

import torch

_undone = []


class TestSilentChange:
    """Change the network in place, `how` as the cases of test_handshake.py; what was changed before is undone."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "change", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "how": ("STRING", {"default": "none"})}}

    def change(self, model, how):
        while _undone:
            _undone.pop()()
        block = model.model.diffusion_model.joint_blocks[1]
        if how == "class of a block":
            cls = type(block)
            block.__class__ = type("Another", (cls,), {"forward": lambda *a, **k: _times(cls.forward, *a, **k)})
            _undone.append(lambda: setattr(block, "__class__", cls))
        elif how == "class of the network":
            network = model.model.diffusion_model
            cls = type(network)
            network.__class__ = type(cls.__name__, (cls,), {"forward": lambda *a, **k: 0.97 * cls.forward(*a, **k)})
            _undone.append(lambda: setattr(network, "__class__", cls))
        elif how == "part of a block":
            mlp = block.x_block.mlp
            block.x_block.mlp = torch.nn.Sequential(mlp, Scaled())
            _undone.append(lambda: setattr(block.x_block, "mlp", mlp))
        elif how == "method of a class":
            cls, forward = type(block), type(block).forward
            cls.forward = lambda *args, **kwargs: _times(forward, *args, **kwargs)
            _undone.append(lambda: setattr(cls, "forward", forward))
        elif how == "attention of a module":
            import comfy.ldm.modules.diffusionmodules.mmdit as scope

            attention = scope.optimized_attention
            scope.optimized_attention = lambda *args, **kwargs: 0.9 * attention(*args, **kwargs)
            _undone.append(lambda: setattr(scope, "optimized_attention", attention))
        elif how == "weights":
            with torch.no_grad():
                weight = block.x_block.mlp.fc1.weight
                before = weight.detach().clone()
                weight.mul_(0.9)
            _undone.append(lambda: weight.detach().copy_(before))
        return (model,)


class Scaled(torch.nn.Module):
    def forward(self, x):
        return 0.9 * x


def _times(function, *args, **kwargs):
    context, x = function(*args, **kwargs)
    return context, 0.97 * x

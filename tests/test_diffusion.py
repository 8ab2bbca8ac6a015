import torch

from nbs_lib.diffusion import alpha_sigma, guided, noised, to_eps


def test_guidance_by_hand():
    uncond, cond = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0])
    assert guided(uncond, cond, 3.0).tolist() == [4.0, -4.0]
    assert torch.equal(guided(uncond, cond, 1.0), cond)
    assert torch.equal(guided(uncond, cond, 0.0), uncond)


def test_every_prediction_type_gives_back_the_noise():
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 3, 4, 4, 4, generator=generator, dtype=torch.float64)[:, :3]
    alpha, sigma = alpha_sigma(torch.tensor([0.9, 0.5, 0.01], dtype=torch.float64), torch.tensor([0, 1, 2]))
    x_t = noised(x_0, eps, alpha, sigma)
    predictions = {"epsilon": eps, "sample": x_0, "v_prediction": alpha * eps - sigma * x_0}
    for prediction_type, prediction in predictions.items():
        torch.testing.assert_close(to_eps(prediction, x_t, alpha, sigma, prediction_type), eps)


def test_alpha_and_sigma_are_the_scheduler_s():
    from nbs_lib.models import find_base

    scheduler = find_base("embedded").scheduler()
    x_0, eps, t = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16), torch.tensor([3, 999])
    ours = noised(x_0, eps, *alpha_sigma(scheduler.alphas_cumprod, t))
    torch.testing.assert_close(ours, scheduler.add_noise(x_0, eps, t))

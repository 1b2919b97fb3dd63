"""Names of figures that say how they were measured, for JSON files and tables."""

__all__ = ["protocol"]


def protocol(
    metric: str, images: int | None = None, network: str = "", temperature: float | None = None
) -> str:
    """Name of a figure with its protocol: `kid2k_effnetlite0_t1` is KID of 2,000 images at temperature 1.

    Args:
        metric: Name of the metric: kid, fid, swd, lpips.
        images: Number of images in each of the compared sets.
        network: Short name of the network whose features are compared.
        temperature: Sampling temperature; None for sets that were not sampled.
    """
    count = "" if images is None else f"{images // 1000}k" if images and not images % 1000 else str(images)
    parts = [f"{metric}{count}", network, "" if temperature is None else f"t{temperature:g}"]
    return "_".join(filter(None, parts))

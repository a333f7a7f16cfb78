"""Keypoints in rows: heatmaps of complete images and crops, and coordinates mapped back for scoring."""

import json

import pytest
import torch

from test_folder import edit
from twofold.data import Folder, FolderError, FolderWriter, validate
from twofold.data.points import Crop, coco_result, get_crop, render_inline
from twofold.geometry import Camera
from twofold.image import resize
from twofold.metrics import peaks
from twofold.sample import Sample, stack
from twofold.targets.people import LIMBS, MIRRORED, colours, draw
from twofold.tasks import TASKS

HEADER = {"name": "people", "targets": {"keypoints": {}, "skeleton": {}}}
# Of a standing person 100 high: x, y by COCO's order of joints.
STANDING = torch.tensor([
    [50, 12], [53, 9], [47, 9], [57, 11], [43, 11], [63, 26], [37, 26], [70, 42], [29, 41], [75, 57], [24, 56],
    [59, 55], [41, 55], [61, 77], [39, 77], [62, 97], [37, 97],
]).double()  # fmt: skip


def person(left=0.0, top=0.0, scale=1.0, unlabelled=()):
    """Joints as COCO has them, and the box around them."""
    places = STANDING * scale + torch.tensor([left, top])
    rows = [[x, y, 0 if k in unlabelled else 2] for k, (x, y) in enumerate(places.tolist())]
    (x0, y0), (x1, y1) = places.amin(0).tolist(), places.amax(0).tolist()
    return rows, [x0, y0, x1 - x0, y1 - y0]


def photo(height=120, width=160, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def written(root, inline, image=None, **more):
    writer = FolderWriter(root, HEADER)
    writer.write(Sample(photo() if image is None else image, id="a", **more), inline)
    writer.finish()
    return Folder(root)


def target(unlabelled=(), **place):
    points, box = person(unlabelled=unlabelled, **place)
    return {"points": points, "box": box, "area": 3000.0, "ann_id": 7, "image_id": 42}


# ---- cuts


def test_a_cut_has_the_shape_of_its_size_and_the_box_in_its_middle():
    for box in ([10, 20, 30, 90], [10, 20, 90, 30], [-5.5, 3, 8, 8]):
        crop = Crop.around(box)
        assert crop.width / crop.height == pytest.approx(192 / 256)
        assert crop.left + crop.width / 2 == pytest.approx(box[0] + box[2] / 2)
        assert crop.top + crop.height / 2 == pytest.approx(box[1] + box[3] / 2)
        room = crop.width / box[2], crop.height / box[3]
        assert min(room) == pytest.approx(1.25)


def test_places_go_into_a_cut_and_back():
    crop = Crop.around([10.5, 20, 33, 90], (64, 48))
    places = torch.rand(5, 17, 2, dtype=torch.float64) * 100
    torch.testing.assert_close(crop.to_image(crop.to_crop(places)), places)
    corners = torch.tensor([[crop.left, crop.top], [crop.left + crop.width, crop.top + crop.height]])
    torch.testing.assert_close(crop.to_crop(corners), torch.tensor([[0.0, 0], [48, 64]]), atol=1e-4, rtol=0)


def test_a_full_crop_is_the_image_and_a_partial_crop_its_part():
    image = photo(40, 30)
    assert torch.equal(Crop(0, 0, 30, 40, (40, 30)).apply(image), image)
    assert torch.equal(Crop(5, 7, 20, 10, (10, 20)).apply(image), image[:, 7:17, 5:25])
    torch.testing.assert_close(Crop(0, 0, 30, 40, (20, 15)).apply(image)[:, 2:-2, 2:-2],
                               resize(image, (20, 15))[:, 2:-2, 2:-2])  # fmt: skip
    beyond = Crop(-10, -10, 50, 60, (60, 50)).apply(image)
    assert torch.equal(beyond[:, 10:50, 10:40], image)
    assert not beyond[:, :10].any()
    assert not beyond[:, :, 40:].any()


def test_a_cut_shows_a_ramp_where_it_is():
    """To a fraction of a pixel, enlarged and reduced: the value of each pixel is the coordinate of its centre."""
    x = (torch.arange(200) + 0.5) / 200
    image = x.expand(1, 100, -1)
    for size in ((64, 48), (256, 192), (30, 20)):
        crop = Crop(20.3, 10.7, 60.6, 80.8, size)
        centres = (torch.arange(size[1]) + 0.5) * crop.width / size[1] + crop.left
        torch.testing.assert_close(crop.apply(image)[0, 5], centres / 200, atol=5e-4, rtol=0)


# ---- folders


def test_a_person_is_cut_out_and_their_joints_are_where_they_were(tmp_path):
    folder = written(tmp_path, {"keypoints": target(left=30, top=8, unlabelled=(3, 16))})
    sample = folder[0]
    assert sample.image.shape == (3, 256, 192)
    assert sample.targets["keypoints"].shape == (17, 256, 192)
    assert bool(sample.valid["keypoints"].all())
    crop = get_crop(folder.descriptor(folder.rows[0], "keypoints"))
    assert crop is not None
    torch.testing.assert_close(sample.image, crop.apply(folder_image(folder)), atol=1e-6, rtol=0)
    found = peaks(sample.targets["keypoints"]).double()
    required = STANDING + torch.tensor([30.5, 8.5])
    labelled = torch.tensor([k not in (3, 16) for k in range(17)])
    torch.testing.assert_close(crop.to_image(found[:, :2])[labelled], required[labelled], atol=0.01, rtol=0)
    assert bool((sample.targets["keypoints"][~labelled] == -1).all())
    assert bool((found[labelled, 2] > 0.9).all())


def folder_image(folder):
    return Folder(folder.root, targets=())[0].image


def test_a_person_without_a_box_is_not_cropped(tmp_path):
    points, _ = person(left=20, top=10)
    camera = Camera(100.0, 100.0, 80.0, 60.0, 160, 120)
    sample = written(tmp_path, {"keypoints": {"points": points}}, camera=camera)[0]
    assert sample.image.shape == (3, 120, 160)
    assert sample.camera == camera
    found = peaks(sample.targets["keypoints"])[:, :2].double()
    torch.testing.assert_close(found, STANDING + torch.tensor([20.5, 10.5]), atol=0.01, rtol=0)


def test_a_joint_far_outside_of_the_cut_is_not_labelled(tmp_path):
    how = target(left=20)
    how["points"][9] = [1000.0, 50.0, 2]
    assert bool((written(tmp_path, {"keypoints": how})[0].targets["keypoints"][9] == -1).all())


def test_the_header_may_define_the_crop_size(tmp_path):
    header = {"name": "p", "targets": {"keypoints": {"size": [64, 64], "enlarge": 1.5}}}
    writer = FolderWriter(tmp_path, header)
    writer.write(Sample(photo(), id="a"), {"keypoints": target(left=30, top=8)})
    writer.finish()
    folder = Folder(tmp_path)
    sample = folder[0]
    assert sample.image.shape == (3, 64, 64)
    result = coco_result(
        sample.targets["keypoints"].clamp(min=0), folder.descriptor(folder.rows[0], "keypoints")
    )
    found = torch.tensor(result["keypoints"]).reshape(17, 3)[:, :2].double()
    assert (found - STANDING - torch.tensor([30, 8])).abs().max() < 0.05


def test_a_true_map_is_a_true_result(tmp_path):
    """As COCO's files have it: pixels of the whole image, the first one's centre at 0."""
    folder = written(tmp_path, {"keypoints": target(left=30, top=8)})
    how = folder.descriptor(folder.rows[0], "keypoints")
    result = json.loads(json.dumps(coco_result(folder[0].targets["keypoints"], how, box_score=0.5)))
    assert (result["image_id"], result["category_id"], len(result["keypoints"])) == (42, 1, 51)
    found = torch.tensor(result["keypoints"]).reshape(17, 3).double()
    torch.testing.assert_close(found[:, :2], STANDING + torch.tensor([30, 8]), atol=0.02, rtol=0)
    assert result["score"] == pytest.approx(0.5, abs=0.01)
    assert coco_result(torch.zeros(17, 256, 192), how)["score"] == 0


def test_skeletons_are_drawn_for_complete_and_cropped_images(tmp_path):
    one, other = person(left=10), person(left=70, top=5, scale=0.9, unlabelled=(0, 9))
    both = {"people": [one[0], other[0]]}
    sample = written(tmp_path / "whole", {"skeleton": both})[0]
    places = torch.tensor([one[0], other[0]])
    expected = draw(places[..., :2] + 0.5, places[..., 2] > 0, (120, 160))
    torch.testing.assert_close(sample.targets["skeleton"], expected)
    assert not written(tmp_path / "nobody", {"skeleton": {"people": []}})[0].targets["skeleton"].any()
    cut = written(tmp_path / "cut", {"keypoints": target(left=10), "skeleton": both})[0]
    assert cut.targets["skeleton"].shape == (3, 256, 192)
    nose = peaks(cut.targets["keypoints"])[0, :2].long()
    seen = cut.targets["skeleton"][:, nose[1], nose[0]]
    torch.testing.assert_close(seen, colours()[1][0], atol=0.02, rtol=0)


def test_samples_of_people_stack(tmp_path):
    folder = written(tmp_path, {"keypoints": target(left=30)})
    batch = stack([folder[0], folder[0]])
    assert batch.targets["keypoints"].shape == (2, 17, 256, 192)
    task = TASKS["keypoints"]
    canvas, mask = task.encode(batch.targets["keypoints"], batch.valid["keypoints"])
    assert task.loss(canvas, canvas, mask).item() == 0
    assert validate(tmp_path).ok


def test_a_cropped_image_has_no_other_maps(tmp_path):
    writer = FolderWriter(tmp_path, {"name": "p", "targets": {"keypoints": {}, "depth": {}}})
    depth = torch.full((1, 120, 160), 2.0)
    sample = Sample(photo(), {"depth": depth}, {"depth": depth > 0}, id="a")
    writer.write(sample, {"keypoints": target()})
    writer.finish()
    with pytest.raises(FolderError, match=r"keypoints crops the image.*depth.*targets=\('keypoints',\)"):
        Folder(tmp_path)[0]
    assert Folder(tmp_path, targets=("keypoints",))[0].image.shape == (3, 256, 192)
    whole = Folder(tmp_path, targets=("depth",))[0]
    torch.testing.assert_close(whole.image, photo(), rtol=0, atol=1 / 255)
    assert torch.equal(whole.targets["depth"], depth)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"points": [[1, 2, 2]] * 16}, "17 entries"),
        ({"points": [[1, 2, float("nan")]] * 17}, "17 entries"),
        ({"points": [["1", 2, 2]] * 17}, "17 entries"),
        ({"points": "many"}, "17 entries"),
        ({"box": [1, 2, 0, 4]}, "'box'"),
        ({"box": [1, 2, 3]}, "'box'"),
        ({"box": [0, 0, 1e8, 1]}, "'box'"),
        ({"size": [64]}, "'size'"),
        ({"size": [64, 1 << 20]}, "'size'"),
        ({"enlarge": -1}, "'enlarge'"),
    ],
)
def test_numbers_that_are_no_joints_are_refused(tmp_path, change, message):
    wrong = {**target(), **change}
    with pytest.raises(ValueError, match=message):
        render_inline(photo(), {"keypoints": wrong})
    with pytest.raises(ValueError, match=message):
        FolderWriter(tmp_path / "new", HEADER).write(Sample(photo(), id="a"), {"keypoints": wrong})
    folder = written(tmp_path / "old", {"keypoints": target()})
    edit(folder.root, lambda rows: [{**rows[0], "targets": {"keypoints": wrong}}])
    with pytest.raises(FolderError, match=f"sample 'a': .*{message}"):
        Folder(folder.root)[0]


def test_invalid_keypoint_rows_are_reported(tmp_path):
    writer = FolderWriter(tmp_path, {"name": "p", "targets": {"keypoints": {}}})
    with pytest.raises(FolderError, match="not in the header: skeleton"):
        writer.write(Sample(photo(), id="a"), {"skeleton": {"people": []}})
    maps = {"keypoints": torch.zeros(17, 120, 160)}
    sample = Sample(photo(), maps, {"keypoints": torch.ones(1, 120, 160) > 0}, id="a")
    with pytest.raises(FolderError, match="as a map and as numbers"):
        writer.write(sample, {"keypoints": target()})
    with pytest.raises(ValueError, match="'people' must be a list"):
        render_inline(photo(), {"skeleton": {"people": 3}})


# ---- skeletons


def crowd(seed=0, count=3):
    rng = torch.Generator().manual_seed(seed)
    scale = 0.4 + torch.rand(count, 1, 1, generator=rng)
    shift = torch.rand(count, 1, 2, generator=rng) * torch.tensor([90.0, 30.0])
    return STANDING.float() * scale + shift, torch.rand(count, 17, generator=rng) > 0.15


def test_colours_are_far_from_each_other_and_mirrors_exchange_red_and_blue():
    limbs, joints = colours()
    apart = torch.pdist(torch.cat([torch.zeros(1, 3), limbs, joints]))
    assert apart.min() > 0.38
    assert torch.equal(joints[list(MIRRORED)], joints.flip(-1))
    ends = {frozenset(limb): c for limb, c in zip(LIMBS, limbs, strict=True)}
    assert len(ends) == 19
    for (a, b), colour in zip(LIMBS, limbs, strict=True):
        assert torch.equal(ends[frozenset((MIRRORED[a], MIRRORED[b]))], colour.flip(-1))


def test_the_mirror_image_of_a_skeleton_is_the_skeleton_of_the_mirror_image():
    places, labelled = crowd()
    picture_ = draw(places, labelled, (120, 160))
    there = torch.stack([160 - places[..., 0], places[..., 1]], -1)[:, list(MIRRORED)]
    expected = draw(there, labelled[:, list(MIRRORED)], (120, 160))
    torch.testing.assert_close(TASKS["skeleton"].flip(picture_), expected, atol=1e-4, rtol=0)
    assert not torch.allclose(picture_.flip(-1), expected, atol=0.1)


def test_joints_have_their_colour_where_they_are_and_limbs_between():
    places, labelled = STANDING.float()[None] * 3, torch.ones(1, 17, dtype=torch.bool)
    picture_ = draw(places, labelled, (320, 320))
    limbs, joints = colours()
    for k in range(17):
        x, y = (places[0, k] - 0.5).round().long().tolist()
        torch.testing.assert_close(picture_[:, y, x], joints[k], atol=1e-5, rtol=0)
    for a, b in ((5, 7), (11, 13), (6, 12)):
        x, y = ((places[0, a] + places[0, b]) / 2).long().tolist()
        torch.testing.assert_close(picture_[:, y, x], limbs[LIMBS.index((a, b))], atol=1e-5, rtol=0)
    assert not picture_[:, :, :40].any()
    labelled[0, 5] = False
    fewer = draw(places, labelled, (320, 320))
    x, y = (places[0, 5] - 0.5).round().long().tolist()
    assert not fewer[:, y, x].any()
    assert torch.equal(fewer[:, 200:, :], picture_[:, 200:, :])


def test_later_people_occlude_earlier_ones():
    places, labelled = STANDING.float()[None].repeat(2, 1, 1), torch.ones(2, 17, dtype=torch.bool)
    places[1, :, 0] += 7
    both, front = draw(places, labelled, (120, 120)), draw(places[1:], labelled[1:], (120, 120))
    solid = (front.amax(0) > 0) & (front == draw(places[1:].repeat(2, 1, 1), labelled, (120, 120))).all(0)
    assert solid.sum() > 100
    torch.testing.assert_close(both[:, solid], front[:, solid])


def test_people_far_outside_are_not_seen():
    places, labelled = crowd()
    assert not draw(places + 1e5, labelled, (40, 50)).any()
    assert not draw(places - 1e5, labelled, (40, 50)).any()


def test_heatmaps_of_a_person_are_drawn_as_their_skeleton():
    task = TASKS["skeleton"]
    how = target(left=30, top=8, unlabelled=(4,))
    _, _, read = render_inline(photo(), {"keypoints": how, "skeleton": {"people": [how["points"]]}})
    maps, valid = read["keypoints"]
    expected, _ = task.encode(read["skeleton"][0][None], valid[None])
    canvas, mask = task.encode(maps[None], valid[None])
    assert torch.equal(mask, valid[None])
    torch.testing.assert_close(canvas, expected, atol=0.02, rtol=0)
    torch.testing.assert_close(task.flip(maps), TASKS["keypoints"].flip(maps))

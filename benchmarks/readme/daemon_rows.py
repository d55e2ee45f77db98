"""Rows about all but the comparison with the official predictor: the demo, nano's quality, messages, pictures kept, an
hour of operation, the line without a model, many cameras, the attention kernel alone.

Pure functions, one per result. Never: reads a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.readme.row import Result, Row, figure, goal, percents, slashed

GOAL_NANO_IOU = {"click": 0.88, "mask": 0.92}
GOAL_DEMO_FPS, GOAL_ADDED_MS, GOAL_MASK_BYTES, GOAL_SUBSCRIBERS = 20, 1.0, 2048, 10


def demo_rows(result: Result) -> list[Row]:
    arrival, fastest = result["arrival_to_received_ms"], result.get("flat_out")
    text = (
        f"{figure(result['fps'])} frames/s of a 20 frames/s source, {result['dropped']} dropped; arrival to received "
        f"{figure(arrival['p50'])} ms median, {figure(arrival['p99'])} ms p99"
    )
    masks = (
        f"mean IoU {result['mean_iou']:.2f}; first mask frozen {result['mean_iou_first_mask_frozen']:.2f}; colour "
        f"threshold {result['mean_iou_colour_threshold']:.2f}; {result['id_switches']} identity switches"
    )
    bound = goal(f">= {GOAL_DEMO_FPS} frames/s, its source's rate", result["fps"] >= 0.99 * GOAL_DEMO_FPS)
    what, how = "The demo, nano, camera to subscriber in another process, 2 objects", "`benchmarks/demo.py`"
    rows = [Row(what, text, bound, result, how), Row("... its masks", masks, "", result, "the same run")]
    if fastest is not None:
        rows.append(Row("... as fast as it goes, 1 object", f"{figure(fastest['fps'])} frames/s", "", result, how))
    return rows


def quality_rows(result: Result) -> list[Row]:
    rows = []
    for prompt, found in result["prompts"].items():
        plain, refined = found["plain"], found["refined"]
        text = (
            f"mean IoU {plain['mean_iou']:.3f} (first frames {plain['mean_iou_first_frame']:.3f}, last ten "
            f"{plain['mean_iou_last_10_frames']:.3f}; worst clip {plain['worst_clip_iou']:.2f}); the same masks "
            f"refined {refined['mean_iou']:.3f}"
        )
        what = f"nano on {result['clips']} unseen generated clips of {result['frames']} frames, one {prompt} each"
        least = GOAL_NANO_IOU[prompt]
        bound = goal(f">= {least}, refined", refined["mean_iou"] >= least)
        rows.append(Row(what, text, bound, result, "`benchmarks/nano_quality.py`"))
    return rows


def attention_rows(result: Result) -> list[Row]:
    one = [row for row in result["rows"] if row["batch"] == 1]
    ran = sorted((row for row in one if "median_ms" in row), key=lambda row: float(row["median_ms"]))
    names = [f"{row['implementation']} {row['dtype']} {figure(row['median_ms'])} ms" for row in ran]
    names += [f"{row['implementation']} {row['dtype']} refused: {row['refused']}" for row in one if "refused" in row]
    peaks = ", ".join(f"{dtype} {peak}" for dtype, peak in result["ceiling_gflop_per_s"].items())
    bound = f"{percents(row['share_of_ceiling'] for row in ran)} of the best matrix product's ({peaks} GFLOP/s)"
    what = f"Memory attention's kernel alone, {result['shape'][0]:,} queries, {result['shape'][1]:,} keys"
    return [Row(what, "; ".join(names), bound, result, "`benchmarks/attention.py`")]


def pipeline_rows(result: Result) -> list[Row]:
    live = [row for row in result["rows"] if row["pace"] == "live"]
    counts = " / ".join(str(row["subscribers"]) for row in live)
    added = [slashed(row["added_ms"][key] for row in live) for key in ("p50", "p99")]
    idle = [slashed(row["baseline_ms"][key] for row in live) for key in ("p50", "p99")]
    goals = [
        goal(f"< {GOAL_ADDED_MS:.0f} ms p99 with {GOAL_SUBSCRIBERS}", row["added_ms"]["p99"] < GOAL_ADDED_MS)
        for row in live
        if row["subscribers"] == GOAL_SUBSCRIBERS
    ]
    size = max(row["bytes_per_object"] for row in live)
    cpu = slashed(row["cpu_ms_per_frame"]["all"] for row in live)
    messages = slashed(row["messages_per_s"] for row in live)
    how, same = "`benchmarks/pipeline.py`", "the same run"
    return [
        Row(
            f"Everything but the model, 1080p, {counts} subscribers: slot filled to `recv`, less engine time",
            f"{added[0]} ms median, {added[1]} ms p99",
            "; ".join([f"idle threads and sockets alone {idle[0]} ms median, {idle[1]} ms p99", *goals]),
            result, how,
        ),
        Row("... CPU of the daemon per frame", f"{cpu} ms; {messages} messages/s", "", result, same),
        Row(
            "... a 1080p object's mask on the wire, median", f"{size:,} bytes",
            goal(f"< {GOAL_MASK_BYTES:,} bytes", size < GOAL_MASK_BYTES), result, same,
        ),
        *[
            Row("... as fast as it goes", f"{figure(row['fps'])} frames/s", "", result, same)
            for row in result["rows"]
            if row["pace"] == "offline"
        ],
    ]  # fmt: skip


def camera_rows(result: Result) -> list[Row]:
    rows, is_null = result["rows"], result["model"] == "null"
    median, worst = (slashed(row["capture_to_publish_ms"][key] for row in rows) for key in ("p50", "p99"))
    text = (
        f"{slashed(row['aggregate_fps'] for row in rows)} frames/s in all; the slowest camera at "
        f"{percents(row['slowest_of_mean'] for row in rows)} of the mean; capture to publish {median} ms median, "
        f"{worst} ms p99; {percents(row['dropped_share'] for row in rows)} replaced by newer ones"
    )
    many, each = " / ".join(str(row["cameras"]) for row in rows), f"{result['fps']:g} frames/s each"
    program = "no model" if is_null else f"{result['model']}, {result['backend']} {result['dtype']}, 1 object each"
    option = " --model null" if is_null else ""
    bound = f"sent: {slashed(row['sent_fps'] for row in rows)} frames/s"
    return [Row(f"{many} cameras of {each}, {program}", text, bound, result, f"`benchmarks/cameras.py{option}`")]


def wire_rows(result: Result) -> list[Row]:
    times = result["mailbox_to_subscriber_ms"]
    one = next(row for row in result["rows"] if row["objects"] == 1 and row["encoding"] == "bits")
    text = f"{figure(times['p50'])} ms median, {figure(times['p99'])} ms p99"
    size = f"{one['bytes']:,} bytes; encoding takes {figure(one['encode_ms'])} ms"
    return [
        Row("A message: publisher's mailbox to subscriber, 1080p masks", text, "", result, "`benchmarks/wire.py`"),
        Row("... with one 1080p object with a wavy outline", size, "", result, "the same run"),
    ]


def history_rows(result: Result) -> list[Row]:
    rows = result["rows"]
    most, late = max(row["ratio"] for row in rows if row["ratio"] is not None), rows[-1]
    text = (
        f"{figure(rows[0]['kept_ms'])} ms a picture without objects, then at most {most:.2f} times as long; a click "
        f"{late['click_late_frames']} pictures late costs {figure(late['click_ms'] / 1e3)} s once"
    )
    many = " / ".join(str(row["objects"]) for row in rows)
    what = f"Keeping pictures for late clicks (nano in fp32, one thread, {many} objects)"
    return [Row(what, text, "", result, "`benchmarks/history.py`")]


def curve_rows(result: Result) -> list[Row]:
    parts = [
        f"{row['bytes'] / 1000:,.1f} KB: {figure(row['plain_cpu_us'])} to {figure(row['curve_cpu_us'])} us of CPU"
        for row in result["rows"]
    ]
    return [Row("CURVE, per message, both sides together", "; ".join(parts), "", result, "`benchmarks/curve.py`")]


def soak_rows(result: Result) -> list[Row]:
    obeyed, lost = result["commands"] - result["commands_refused"], result["masks_lost_on_the_way"]
    text = (
        f"RSS {result['slopes_per_hour']['rss_mb']:+.0f} MB in an hour, threads and files constant; "
        f"{result['masks_received']:,} masks and as many pictures received, {lost} lost on the way; {obeyed} of "
        f"{result['commands']} commands obeyed; it ended within {figure(result['stop_s'])} s of TERM"
    )
    minutes = f"{result['minutes']:.0f} minutes"
    what = f"The daemon for {minutes} on a busy machine: 2 RTSP cameras, 4 objects, a viewer, power cuts of a camera"
    return [Row(what, text, "", result, "`benchmarks/soak.py`")]


ROWS: Mapping[str, Callable[[Result], list[Row]]] = {
    "demo": demo_rows,
    "nano_quality": quality_rows,
    "attention": attention_rows,
    "pipeline": pipeline_rows,
    "cameras": camera_rows,
    "wire": wire_rows,
    "history": history_rows,
    "curve": curve_rows,
    "soak": soak_rows,
}

"""Pictures that a program already has (ROS topic, RealSense, simulator) into `push://robot`, in fifteen lines.

Run it as: python tests/push_example.py tcp://127.0.0.1:5570 100
against:   sam2-stream run 'push://robot?bind=tcp://127.0.0.1:5570' --point 320,240
"""

import sys
import time

import msgspec
import numpy as np
import zmq

socket = zmq.Context.instance().socket(zmq.PUSH)
socket.sndhwm = 2  # a few frames, never a backlog
socket.connect(sys.argv[1])
for seq in range(int(sys.argv[2])):
    picture = np.full((480, 640, 3), seq % 256, np.uint8)  # height x width x BGR: put your own here
    height, width, _ = picture.shape
    header = {"version": 1, "encoding": "raw_bgr", "height": height, "width": width}
    header |= {"utc_ns": time.time_ns(), "frame_id": "robot_camera_optical_frame", "seq": seq}
    socket.send_multipart([msgspec.msgpack.encode(header), picture], copy=False)
    time.sleep(1 / 30)

"""A sender of the field: kafka-python, no key, a chunk of the capture a record.

The last arguments are how the sender calls the user, userid or user_id, and how batches are compressed.
"""

import base64
import json
import sys

from kafka import KafkaProducer

brokers, topic, name, capture, chunk_bytes, user_field, codec = sys.argv[1:]
producer = KafkaProducer(
    bootstrap_servers=brokers,
    value_serializer=lambda value: json.dumps(value).encode("utf-8"),
    compression_type=None if codec == "none" else codec,
)
with open(capture, "rb") as file:
    while chunk := file.read(int(chunk_bytes)):
        producer.send(
            topic,
            {
                user_field: name.split("-")[0],
                "data": base64.b64encode(chunk).decode("ascii"),
                "interceptionfilename": name,
            },
        )
producer.flush()
producer.close()

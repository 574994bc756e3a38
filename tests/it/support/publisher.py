"""Publishes the lines of standard input to a queue, a persistent message each.

usage: publisher.py PORT QUEUE [--ids]     with --ids each message has an id of its own

Prints how many messages the queue has then.
"""

import sys

import pika

port, queue = int(sys.argv[1]), sys.argv[2]
with_ids = sys.argv[3:] == ["--ids"]
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
channel = connection.channel()
channel.queue_declare(queue, durable=True)
channel.tx_select()
for number, line in enumerate(sys.stdin.buffer):
    properties = pika.BasicProperties(
        content_type="application/json",
        headers={"from": "a proxy", "n": number},
        delivery_mode=2,
        message_id=f"message-{number}" if with_ids else None,
    )
    channel.basic_publish("", queue, line.rstrip(b"\n"), properties)
# Answered when all of them are in the queue.
channel.tx_commit()
print(channel.queue_declare(queue, durable=True).method.message_count)
connection.close()

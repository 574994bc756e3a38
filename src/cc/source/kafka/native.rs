//! The calls to librdkafka that the `rdkafka` crate does not have: a topic's id, the watermarks that came with the
//! last answer, and commits whose acknowledgement can be waited for with a bound. Nothing here keeps state but
//! [`Commits`].
//!
//! This module alone uses `unsafe`. What it relies on: a client lives as long as its `Client` is borrowed or its
//! consumer is shared; librdkafka's objects are ours to destroy, except those that an event lends.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

/// Milliseconds for C; what does not fit is the most that does.
fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// A queue of librdkafka's for answers.
struct Queue(NonNull<rd::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Queue {}

impl Queue {
    fn new<C: ClientContext>(client: &Client<C>) -> Queue {
        // SAFETY: the client is alive. The call allocates and gives no null.
        let queue = unsafe { rd::rd_kafka_queue_new(client.native_ptr()) };
        Queue(NonNull::new(queue).expect("rd_kafka_queue_new gives a queue"))
    }

    /// Waits for an answer.
    fn poll(&self, timeout: Duration) -> Option<Event> {
        // SAFETY: the queue is alive until `drop`.
        NonNull::new(unsafe { rd::rd_kafka_queue_poll(self.0.as_ptr(), millis(timeout)) }).map(Event)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: it is ours, and this is its end.
        unsafe { rd::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// An answer; it owns what its accessors lend.
struct Event(NonNull<rd::rd_kafka_event_t>);

impl Event {
    fn error(&self) -> Option<RDKafkaErrorCode> {
        // SAFETY: the event is alive.
        failed(unsafe { rd::rd_kafka_event_error(self.0.as_ptr()) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it is ours, and this is its end.
        unsafe { rd::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

fn failed(code: rd::rd_kafka_resp_err_t) -> Option<RDKafkaErrorCode> {
    (code != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| code.into())
}

/// The low and the high watermark of a partition, as the broker's last answer to a fetch had them.
pub fn watermarks<C: ClientContext>(client: &Client<C>, topic: &str, partition: i32) -> Option<(i64, i64)> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is alive, the string ends with NUL, and the two numbers outlive the call.
    let code = unsafe {
        let client = client.native_ptr();
        rd::rd_kafka_get_watermark_offsets(client, topic.as_ptr(), partition, &mut low, &mut high)
    };
    // Negative: not known yet.
    (failed(code).is_none() && high >= 0).then_some((low, high))
}

/// The id of a topic, in Kafka's own form (base64url); none if there is no such topic, or no ids at that broker.
pub fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> KafkaResult<Option<String>> {
    let queue = Queue::new(client);
    ask_for_description(client, topic, timeout, &queue)?;
    // librdkafka ends the request itself; this bound is behind that one.
    let answer = queue.poll(timeout + Duration::from_secs(1));
    let answer = answer.ok_or(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut))?;
    match answer.error() {
        Some(code) => Err(KafkaError::AdminOp(code)),
        None => described_id(&answer),
    }
}

fn ask_for_description<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
    queue: &Queue,
) -> KafkaResult<()> {
    let topic = CString::new(topic)?;
    let mut names = [topic.as_ptr()];
    // SAFETY: the client and the queue are alive; the names, the collection and the options are copied by the calls,
    // and destroyed here after them.
    unsafe {
        let options = rd::rd_kafka_AdminOptions_new(
            client.native_ptr(),
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        );
        let mut reason = [0; 128];
        let code = rd::rd_kafka_AdminOptions_set_request_timeout(
            options,
            millis(timeout).max(1),
            reason.as_mut_ptr(),
            reason.len(),
        );
        let topics = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        if failed(code).is_none() {
            rd::rd_kafka_DescribeTopics(client.native_ptr(), topics, options, queue.0.as_ptr());
        }
        rd::rd_kafka_TopicCollection_destroy(topics);
        rd::rd_kafka_AdminOptions_destroy(options);
        failed(code).map_or(Ok(()), |code| Err(KafkaError::AdminOp(code)))
    }
}

fn described_id(answer: &Event) -> KafkaResult<Option<String>> {
    // SAFETY: everything here is lent by the event, which lives longer; null and counts are looked at first.
    unsafe {
        let result = rd::rd_kafka_event_DescribeTopics_result(answer.0.as_ptr());
        if result.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::BadMessage));
        }
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() || count != 1 {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::BadMessage));
        }
        let error = rd::rd_kafka_TopicDescription_error(*topics);
        match failed(rd::rd_kafka_error_code(error)) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => return Ok(None),
            Some(code) => return Err(KafkaError::AdminOp(code)),
        }
        let id = rd::rd_kafka_TopicDescription_topic_id(*topics);
        let most = rd::rd_kafka_Uuid_most_significant_bits(id);
        let least = rd::rd_kafka_Uuid_least_significant_bits(id);
        if (most, least) == (0, 0) {
            return Ok(None);
        }
        // librdkafka writes it in the other alphabet.
        let id = CStr::from_ptr(rd::rd_kafka_Uuid_base64str(id)).to_string_lossy();
        Ok(Some(id.replace('+', "-").replace('/', "_")))
    }
}

/// What became of a commit.
pub struct Committed {
    /// Why all of it failed.
    pub error: Option<RDKafkaErrorCode>,
    /// Each partition with its offset, or why it failed.
    pub partitions: Vec<(String, i32, Result<i64, RDKafkaErrorCode>)>,
}

/// Commits, and their acknowledgements on a queue of their own: waiting for one neither takes records nor lets
/// partitions change.
pub struct Commits<C: ConsumerContext + 'static> {
    // Before the consumer, which has to outlive it: fields are dropped in this order.
    queue: Queue,
    consumer: Arc<BaseConsumer<C>>,
}

impl<C: ConsumerContext + 'static> Commits<C> {
    /// Commits of this consumer.
    pub fn of(consumer: &Arc<BaseConsumer<C>>) -> Commits<C> {
        Commits { queue: Queue::new(consumer.client()), consumer: Arc::clone(consumer) }
    }

    /// Asks for a commit; [`next`](Commits::next) says what became of it.
    pub fn ask(&self, offsets: &TopicPartitionList) -> KafkaResult<()> {
        // SAFETY: client, list and queue are alive; the list is copied; there is no callback, hence no opaque.
        let code = unsafe {
            rd::rd_kafka_commit_queue(
                self.consumer.client().native_ptr(),
                offsets.ptr(),
                self.queue.0.as_ptr(),
                None,
                ptr::null_mut(),
            )
        };
        failed(code).map_or(Ok(()), |code| Err(KafkaError::ConsumerCommit(code)))
    }

    /// Waits for the next answer.
    pub fn next(&self, timeout: Duration) -> Option<Committed> {
        let deadline = Instant::now() + timeout;
        loop {
            let event = self.queue.poll(deadline.saturating_duration_since(Instant::now()))?;
            // SAFETY: the event is alive.
            let kind = unsafe { rd::rd_kafka_event_type(event.0.as_ptr()) };
            if kind == rd::RD_KAFKA_EVENT_OFFSET_COMMIT {
                return Some(Committed { error: event.error(), partitions: partitions_of(&event) });
            }
        }
    }
}

fn partitions_of(event: &Event) -> Vec<(String, i32, Result<i64, RDKafkaErrorCode>)> {
    // SAFETY: the list is lent by the event, which lives longer, and has `cnt` elements with a topic each.
    let elements = unsafe {
        let list = rd::rd_kafka_event_topic_partition_list(event.0.as_ptr());
        match list.as_ref() {
            Some(list) if list.cnt > 0 => std::slice::from_raw_parts(list.elems, list.cnt as usize),
            _ => return Vec::new(),
        }
    };
    let read = |element: &rd::rd_kafka_topic_partition_t| {
        // SAFETY: as above; the topic ends with NUL.
        let topic = unsafe { CStr::from_ptr(element.topic) }.to_string_lossy().into_owned();
        let result = match (failed(element.err), Offset::from_raw(element.offset)) {
            (None, Offset::Offset(offset)) => Ok(offset),
            (None, _) => Err(RDKafkaErrorCode::NoOffset),
            (Some(code), _) => Err(code),
        };
        (topic, element.partition, result)
    };
    elements.iter().map(read).collect()
}

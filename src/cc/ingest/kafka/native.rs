//! Calls to librdkafka that the `rdkafka` crate lacks: the id of a topic, the watermarks of the last
//! response, and commits whose acknowledgement can be awaited with a time limit. Only [`CommitQueue`] keeps
//! state.
//!
//! This module uses `unsafe`. It relies on this: a client lives as long as its `Client` is borrowed or its
//! consumer is shared, and librdkafka's objects must be destroyed here, except those that an event lends.
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

/// Converts a duration to milliseconds for C, saturating.
fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// Queue on which librdkafka delivers answers.
struct AnswerQueue(NonNull<rd::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for AnswerQueue {}

impl AnswerQueue {
    fn new<C: ClientContext>(client: &Client<C>) -> AnswerQueue {
        // SAFETY: the client is alive. The call allocates and never returns null.
        let queue = unsafe { rd::rd_kafka_queue_new(client.native_ptr()) };
        AnswerQueue(NonNull::new(queue).expect("rd_kafka_queue_new gives a queue"))
    }

    fn poll(&self, timeout: Duration) -> Option<AnswerEvent> {
        // SAFETY: the queue is alive until `drop`.
        NonNull::new(unsafe { rd::rd_kafka_queue_poll(self.0.as_ptr(), millis(timeout)) }).map(AnswerEvent)
    }
}

impl Drop for AnswerQueue {
    fn drop(&mut self) {
        // SAFETY: owned by this value, and not used after this call.
        unsafe { rd::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// Answer of librdkafka. It owns what its accessors lend.
struct AnswerEvent(NonNull<rd::rd_kafka_event_t>);

impl AnswerEvent {
    fn error(&self) -> Option<RDKafkaErrorCode> {
        // SAFETY: the event is alive.
        error_code(unsafe { rd::rd_kafka_event_error(self.0.as_ptr()) })
    }
}

impl Drop for AnswerEvent {
    fn drop(&mut self) {
        // SAFETY: owned by this value, and not used after this call.
        unsafe { rd::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

fn error_code(code: rd::rd_kafka_resp_err_t) -> Option<RDKafkaErrorCode> {
    (code != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| code.into())
}

/// Returns the low and high watermarks of a partition from the broker's last fetch response.
pub(super) fn watermarks<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: i32,
) -> Option<(i64, i64)> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is alive, the string ends with NUL, and the two numbers outlive the call.
    let code = unsafe {
        let client = client.native_ptr();
        rd::rd_kafka_get_watermark_offsets(client, topic.as_ptr(), partition, &mut low, &mut high)
    };
    // A negative value means unknown.
    (error_code(code).is_none() && high >= 0).then_some((low, high))
}

/// Queries the offset after the last record of a partition, records of open transactions included.
pub(super) fn end_offset<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: i32,
    timeout: Duration,
) -> KafkaResult<i64> {
    let queue = AnswerQueue::new(client);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::End)?;
    // SAFETY: the client, the list and the queue are alive. The call copies the list and the options, which are destroyed
    // after it. By default the query includes records of open transactions.
    unsafe {
        let options = rd::rd_kafka_AdminOptions_new(
            client.native_ptr(),
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
        );
        let mut reason = [0; 128];
        let time = millis(timeout).max(1);
        let code =
            rd::rd_kafka_AdminOptions_set_request_timeout(options, time, reason.as_mut_ptr(), reason.len());
        if error_code(code).is_none() {
            rd::rd_kafka_ListOffsets(client.native_ptr(), list.ptr(), options, queue.0.as_ptr());
        }
        rd::rd_kafka_AdminOptions_destroy(options);
        error_code(code).map_or(Ok(()), |code| Err(KafkaError::AdminOp(code)))?;
    }
    let answer = queue.poll(timeout + Duration::from_secs(1));
    let answer = answer.ok_or(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut))?;
    match answer.error() {
        Some(code) => Err(KafkaError::AdminOp(code)),
        None => parse_end_offset(&answer),
    }
}

fn parse_end_offset(answer: &AnswerEvent) -> KafkaResult<i64> {
    // SAFETY: everything here is lent by the event, which lives longer. Null pointers and counts are checked first.
    unsafe {
        let result = rd::rd_kafka_event_ListOffsets_result(answer.0.as_ptr());
        if result.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::BadMessage));
        }
        let mut count = 0;
        let infos = rd::rd_kafka_ListOffsets_result_infos(result, &mut count);
        if infos.is_null() || count != 1 {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::BadMessage));
        }
        let element = rd::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos);
        match element.as_ref() {
            None => Err(KafkaError::AdminOp(RDKafkaErrorCode::BadMessage)),
            Some(element) => match error_code(element.err) {
                Some(code) => Err(KafkaError::AdminOp(code)),
                None => Ok(element.offset),
            },
        }
    }
}

/// Queries the id of a topic, in Kafka's own notation (base64url). `None` if the topic does not exist or the
/// broker has no topic ids.
pub(super) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> KafkaResult<Option<String>> {
    let queue = AnswerQueue::new(client);
    request_description(client, topic, timeout, &queue)?;
    // librdkafka times the request out itself. This later timeout is a safeguard.
    let answer = queue.poll(timeout + Duration::from_secs(1));
    let answer = answer.ok_or(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut))?;
    match answer.error() {
        Some(code) => Err(KafkaError::AdminOp(code)),
        None => parse_described_id(&answer),
    }
}

fn request_description<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
    queue: &AnswerQueue,
) -> KafkaResult<()> {
    let topic = CString::new(topic)?;
    let mut names = [topic.as_ptr()];
    // SAFETY: the client and the queue are alive. The calls copy the names, the collection and the options,
    // which are destroyed after them.
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
        if error_code(code).is_none() {
            rd::rd_kafka_DescribeTopics(client.native_ptr(), topics, options, queue.0.as_ptr());
        }
        rd::rd_kafka_TopicCollection_destroy(topics);
        rd::rd_kafka_AdminOptions_destroy(options);
        error_code(code).map_or(Ok(()), |code| Err(KafkaError::AdminOp(code)))
    }
}

fn parse_described_id(answer: &AnswerEvent) -> KafkaResult<Option<String>> {
    // SAFETY: everything here is lent by the event, which lives longer. Null pointers and counts are checked
    // first.
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
        match error_code(rd::rd_kafka_error_code(error)) {
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
        // librdkafka uses the other base64 alphabet.
        let id = CStr::from_ptr(rd::rd_kafka_Uuid_base64str(id)).to_string_lossy();
        Ok(Some(id.replace('+', "-").replace('/', "_")))
    }
}

/// Result of a commit.
pub(super) struct CommitResult {
    /// Error of the whole commit.
    pub error: Option<RDKafkaErrorCode>,
    /// Offset or error of each partition.
    pub partitions: Vec<(String, i32, Result<i64, RDKafkaErrorCode>)>,
}

/// Commits whose acknowledgements arrive on a separate queue: waiting for one neither returns records nor
/// triggers rebalances.
pub(super) struct CommitQueue<C: ConsumerContext + 'static> {
    // Fields are dropped in order: the queue must be destroyed before the consumer.
    queue: AnswerQueue,
    consumer: Arc<BaseConsumer<C>>,
}

impl<C: ConsumerContext + 'static> CommitQueue<C> {
    pub(super) fn new(consumer: &Arc<BaseConsumer<C>>) -> CommitQueue<C> {
        CommitQueue { queue: AnswerQueue::new(consumer.client()), consumer: Arc::clone(consumer) }
    }

    /// Requests a commit. [`next_result`](CommitQueue::next_result) returns its result.
    pub(super) fn commit(&self, offsets: &TopicPartitionList) -> KafkaResult<()> {
        // SAFETY: client, list and queue are alive, and the list is copied. There is no callback, so no
        // opaque is needed.
        let code = unsafe {
            rd::rd_kafka_commit_queue(
                self.consumer.client().native_ptr(),
                offsets.ptr(),
                self.queue.0.as_ptr(),
                None,
                ptr::null_mut(),
            )
        };
        error_code(code).map_or(Ok(()), |code| Err(KafkaError::ConsumerCommit(code)))
    }

    /// Waits for the next result.
    pub(super) fn next_result(&self, timeout: Duration) -> Option<CommitResult> {
        let deadline = Instant::now() + timeout;
        loop {
            let event = self.queue.poll(deadline.saturating_duration_since(Instant::now()))?;
            // SAFETY: the event is alive.
            let kind = unsafe { rd::rd_kafka_event_type(event.0.as_ptr()) };
            if kind == rd::RD_KAFKA_EVENT_OFFSET_COMMIT {
                return Some(CommitResult { error: event.error(), partitions: partitions_of(&event) });
            }
        }
    }
}

fn partitions_of(event: &AnswerEvent) -> Vec<(String, i32, Result<i64, RDKafkaErrorCode>)> {
    // SAFETY: the list is lent by the event, which lives longer. It has `cnt` elements, each with a topic.
    let elements = unsafe {
        let list = rd::rd_kafka_event_topic_partition_list(event.0.as_ptr());
        match list.as_ref() {
            Some(list) if list.cnt > 0 => std::slice::from_raw_parts(list.elems, list.cnt as usize),
            _ => return Vec::new(),
        }
    };
    let read = |element: &rd::rd_kafka_topic_partition_t| {
        // SAFETY: as above. The topic ends with NUL.
        let topic = unsafe { CStr::from_ptr(element.topic) }.to_string_lossy().into_owned();
        let result = match (error_code(element.err), Offset::from_raw(element.offset)) {
            (None, Offset::Offset(offset)) => Ok(offset),
            (None, _) => Err(RDKafkaErrorCode::NoOffset),
            (Some(code), _) => Err(code),
        };
        (topic, element.partition, result)
    };
    elements.iter().map(read).collect()
}

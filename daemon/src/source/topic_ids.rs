//! The ids of topics. Kafka gives a topic that is created again another id, although its name and offsets look the same.
//! rdkafka has no call for them, so this one goes to librdkafka.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

/// The ids of these topics, as Kafka's tools show them. A broker that knows no ids gives none.
pub(super) fn topic_ids<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    names: &[&str],
    timeout: Duration,
) -> BTreeMap<String, String> {
    let names: Vec<CString> = names.iter().filter_map(|name| CString::new(*name).ok()).collect();
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let client = consumer.client().native_ptr();
    let millis = timeout.as_millis() as i32;
    let mut ids = BTreeMap::new();
    // SAFETY: the client lives as long as the consumer, and the names as long as this function. What librdkafka allocates
    // here is destroyed at the end, after the last use; the event owns the result, and the result all that it points to.
    unsafe {
        let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let options =
            sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
        let queue = sys::rd_kafka_queue_new(client);
        sys::rd_kafka_DescribeTopics(client, collection, options, queue);
        // The request ends by its own timeout, a moment before this one.
        let event = sys::rd_kafka_queue_poll(queue, millis + 500);
        if !event.is_null() {
            let result = sys::rd_kafka_event_DescribeTopics_result(event);
            if !result.is_null() {
                read_ids(result, &mut ids);
            }
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(collection);
    }
    ids
}

/// # Safety
///
/// The result must be one of `rd_kafka_DescribeTopics`, and its event alive.
unsafe fn read_ids(result: *const sys::rd_kafka_DescribeTopics_result_t, ids: &mut BTreeMap<String, String>) {
    let mut count = 0;
    // SAFETY: by the contract of this function; the array has `count` topics, which the result owns.
    unsafe {
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        for at in 0..count {
            let topic = *topics.add(at);
            let id = sys::rd_kafka_TopicDescription_topic_id(topic);
            if id.is_null() || sys::rd_kafka_Uuid_most_significant_bits(id) == 0 {
                continue; // none: an error, or a broker without ids
            }
            let text = |text| CStr::from_ptr(text).to_string_lossy().into_owned();
            let id = text(sys::rd_kafka_Uuid_base64str(id));
            ids.insert(text(sys::rd_kafka_TopicDescription_name(topic)), id);
        }
    }
}

//! Converts a librdkafka message to a record without copying it.

use std::borrow::Cow;
use std::ffi::CStr;
use std::ptr;

use rdkafka::bindings::{rd_kafka_header_get_all, rd_kafka_headers_t, rd_kafka_message_headers};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Message, Timestamp};
use silverd_core::chunk::{Record, TimestampType};

pub(super) fn from_message<'m>(message: &'m BorrowedMessage<'m>) -> Record<'m, Headers<'m>> {
    Record {
        offset: message.offset(),
        timestamp: match message.timestamp() {
            Timestamp::NotAvailable => None,
            Timestamp::CreateTime(ms) => Some((ms, TimestampType::CreateTime)),
            Timestamp::LogAppendTime(ms) => Some((ms, TimestampType::LogAppendTime)),
        },
        key: message.key(),
        value: message.payload(),
        headers: Headers::of(message),
    }
}

/// The headers of a message. rdkafka's own accessor panics if a name is not UTF-8; here invalid bytes are replaced.
pub(super) struct Headers<'m> {
    headers: *mut rd_kafka_headers_t,
    next: usize,
    message: std::marker::PhantomData<&'m ()>,
}

impl<'m> Headers<'m> {
    fn of(message: &'m BorrowedMessage<'m>) -> Self {
        let mut headers = ptr::null_mut();
        // SAFETY: the message outlives `self`; without headers the pointer stays null.
        let error = unsafe { rd_kafka_message_headers(message.ptr(), &mut headers) };
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            headers = ptr::null_mut();
        }
        Self { headers, next: 0, message: std::marker::PhantomData }
    }
}

impl<'m> Iterator for Headers<'m> {
    type Item = (Cow<'m, str>, Option<&'m [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.headers.is_null() {
            return None;
        }
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the headers belong to the message, which is alive; librdkafka returns an error for an index beyond
        // them.
        let error = unsafe { rd_kafka_header_get_all(self.headers, self.next, &mut name, &mut value, &mut size) };
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        self.next += 1;
        // SAFETY: on success the name is a C string, and the value, unless it is null, has `size` bytes. Both belong to
        // the message.
        let (name, value) = unsafe {
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size));
            (CStr::from_ptr(name), value)
        };
        Some((String::from_utf8_lossy(name.to_bytes()), value))
    }
}

//! What Kafka's errors mean for silverd, in one table.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::watchdog::{NoAnswer, Stalled};

/// What has to happen so that reading goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing: it passes.
    Wait,
    /// librdkafka does not recover from it without a new consumer.
    NewConsumer,
    /// The broker does not know `group.protocol = "consumer"`.
    ClassicProtocol,
    /// The user has to change something.
    User(&'static str),
}

/// The remedy for an error; `None` for those that librdkafka handles itself.
pub(super) fn remedy(code: RDKafkaErrorCode) -> Option<Remedy> {
    use RDKafkaErrorCode as Code;
    Some(match code {
        Code::AllBrokersDown
        | Code::BrokerNotAvailable
        | Code::BrokerTransportFailure
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::FencedLeaderEpoch
        | Code::KafkaStorageError
        | Code::LeaderNotAvailable
        | Code::ListenerNotFound
        | Code::MessageTimedOut
        | Code::NetworkException
        | Code::NotCoordinator
        | Code::NotLeaderForPartition
        | Code::OffsetNotAvailable
        | Code::OperationTimedOut
        | Code::ReplicaNotAvailable
        | Code::RequestTimedOut
        | Code::UnknownLeaderEpoch => Remedy::Wait,
        Code::OffsetOutOfRange | Code::AutoOffsetReset | Code::LogTruncation | Code::UnknownTopicOrPartition => {
            Remedy::NewConsumer
        }
        Code::UnsupportedAssignor | Code::UnsupportedFeature | Code::UnsupportedVersion => Remedy::ClassicProtocol,
        Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL => {
            Remedy::User("correct the credentials under [source.kafka] in pipeline.toml")
        }
        Code::TopicAuthorizationFailed => {
            Remedy::User("allow the user of [source.kafka] in pipeline.toml to read and describe the topic")
        }
        Code::GroupAuthorizationFailed => Remedy::User(
            "allow the user of [source.kafka] to read the consumer group, or set `group` under [source] in pipeline.toml",
        ),
        Code::FencedInstanceId | Code::UnreleasedInstanceId => Remedy::User(
            "another member of the consumer group has this `group.instance.id`: give each silverd its own under \
             [source.kafka] in pipeline.toml",
        ),
        _ => return None,
    })
}

/// Whether a failure passes without help: for example, a topic that was just created has no leaders yet.
pub(super) fn passes(failure: &anyhow::Error) -> bool {
    if failure.is::<Stalled>() || failure.is::<NoAnswer>() {
        return true;
    }
    let error = failure.chain().find_map(|cause| cause.downcast_ref::<KafkaError>());
    error.and_then(KafkaError::rdkafka_error_code).is_some_and(|code| {
        // Not every broker knows a new topic at once.
        remedy(code) == Some(Remedy::Wait) || code == RDKafkaErrorCode::UnknownTopicOrPartition
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_failure_passes_by_what_caused_it() {
        let failure = |code| Err::<(), _>(KafkaError::MetadataFetch(code)).context("request the watermarks").err();
        let passes = |code| failure(code).is_some_and(|failure| passes(&failure));
        assert!(passes(RDKafkaErrorCode::NotLeaderForPartition));
        assert!(passes(RDKafkaErrorCode::BrokerTransportFailure));
        assert!(!passes(RDKafkaErrorCode::TopicAuthorizationFailed));
        assert!(!passes(RDKafkaErrorCode::OffsetOutOfRange));
        assert!(!super::passes(&anyhow::anyhow!("no error of Kafka")));
    }
}

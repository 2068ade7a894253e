//! The broker's settings that are known and checked but have no effect. Each group has a reason, which is logged once
//! at the start if one of its settings is given. If a setting gets an effect, it moves to `broker.rs`.

use super::{
    broker::{ANY_NAMES, SOME_NAMES},
    table::{Definition, Effect, rows},
    value::Validator::*,
};

rows! {
    /// node.id identifies this broker.
    NODE, "Identity", Effect::None("node.id identifies this broker"), {
        ["broker.id"] Int = "1",
            Any, High, ReadOnly,
            "Identifier of this broker; the same value as node.id.",
            deviation "Kafka's -1 means node.id, which is 1 where it is not set.";
    }
}

rows! {
    /// TLS is not served yet, every listener is PLAINTEXT.
    TLS, "TLS", Effect::None("TLS is not served yet, every listener is PLAINTEXT"), {
        ["ssl.allow.dn.changes"] Boolean = "false",
            Any, Low, ReadOnly,
            "Whether a reloaded certificate may change its distinguished name.";
        ["ssl.allow.san.changes"] Boolean = "false",
            Any, Low, ReadOnly,
            "Whether a reloaded certificate may lose alternative names.";
        ["ssl.cipher.suites"] List = "",
            ANY_NAMES, Medium, PerBroker,
            "Cipher suites offered.";
        ["ssl.client.auth"] String = "none",
            OneOf(&["required", "requested", "none"]), Medium, PerBroker,
            "Whether clients must present a certificate.";
        ["ssl.enabled.protocols"] List = "TLSv1.2,TLSv1.3",
            ANY_NAMES, Medium, PerBroker,
            "TLS versions offered.";
        ["ssl.endpoint.identification.algorithm"] String = "https",
            Any, Low, PerBroker,
            "How a peer's host name is checked.";
        ["ssl.engine.factory.class"] Class = null,
            Any, Low, PerBroker,
            "Class that makes TLS engines.";
        ["ssl.key.password"] Password = null,
            Any, Medium, PerBroker,
            "Password of the private key.";
        ["ssl.keymanager.algorithm"] String = "SunX509",
            Any, Medium, PerBroker,
            "Algorithm of the key manager.";
        ["ssl.keystore.certificate.chain"] Password = null,
            Any, Medium, PerBroker,
            "Certificate chain in PEM.";
        ["ssl.keystore.key"] Password = null,
            Any, Medium, PerBroker,
            "Private key in PEM.";
        ["ssl.keystore.location"] String = null,
            Any, Medium, PerBroker,
            "File of the key store.";
        ["ssl.keystore.password"] Password = null,
            Any, Medium, PerBroker,
            "Password of the key store.";
        ["ssl.keystore.type"] String = "JKS",
            Any, Medium, PerBroker,
            "Format of the key store.";
        ["ssl.principal.mapping.rules"] String = "DEFAULT",
            Any, Low, ReadOnly,
            "Rules from a certificate's name to a user name.";
        ["ssl.protocol"] String = "TLSv1.3",
            Any, Medium, PerBroker,
            "TLS version of a context.";
        ["ssl.provider"] String = null,
            Any, Medium, PerBroker,
            "Java security provider of TLS.";
        ["ssl.secure.random.implementation"] String = null,
            Any, Low, PerBroker,
            "Random source of TLS.";
        ["ssl.trustmanager.algorithm"] String = "PKIX",
            Any, Medium, PerBroker,
            "Algorithm of the trust manager.";
        ["ssl.truststore.certificates"] Password = null,
            Any, Medium, PerBroker,
            "Trusted certificates in PEM.";
        ["ssl.truststore.location"] String = null,
            Any, Medium, PerBroker,
            "File of the trust store.";
        ["ssl.truststore.password"] Password = null,
            Any, Medium, PerBroker,
            "Password of the trust store.";
        ["ssl.truststore.type"] String = "JKS",
            Any, Medium, PerBroker,
            "Format of the trust store.";
    }
}

rows! {
    /// SASL is not served yet, clients are anonymous.
    SASL, "SASL and tokens", Effect::None("SASL is not served yet, clients are anonymous"), {
        ["connection.failed.authentication.delay.ms"] Int = "100",
            AtLeast(0), Low, ReadOnly,
            "Delay of the response to a failed authentication, in milliseconds.";
        ["connections.max.reauth.ms"] Long = "0",
            Any, Medium, ReadOnly,
            "Longest life of an authenticated session, in milliseconds; 0 is no limit.";
        ["delegation.token.expiry.check.interval.ms"] Long = "3600000",
            AtLeast(1), Low, ReadOnly,
            "How often the broker checks for expired delegation tokens, in milliseconds.";
        ["delegation.token.expiry.time.ms"] Long = "86400000",
            AtLeast(1), Medium, ReadOnly,
            "Life of a delegation token before it must be renewed, in milliseconds.";
        ["delegation.token.max.lifetime.ms"] Long = "604800000",
            AtLeast(1), Medium, ReadOnly,
            "Longest life of a delegation token, in milliseconds.";
        ["delegation.token.secret.key"] Password = null,
            Any, Medium, ReadOnly,
            "Secret that signs delegation tokens.";
        ["principal.builder.class"] Class = "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder",
            Any, Medium, PerBroker,
            "Class that names a connection's principal.";
        ["sasl.client.callback.handler.class"] Class = null,
            Any, Medium, ReadOnly,
            "Class of the client's callback handler.";
        ["sasl.enabled.mechanisms"] List = "GSSAPI",
            ANY_NAMES, Medium, PerBroker,
            "SASL mechanisms offered.";
        ["sasl.jaas.config"] Password = null,
            Any, Medium, PerBroker,
            "JAAS login configuration.";
        ["sasl.kerberos.kinit.cmd"] String = "/usr/bin/kinit",
            Any, Medium, PerBroker,
            "Path of kinit.";
        ["sasl.kerberos.min.time.before.relogin"] Long = "60000",
            Any, Medium, PerBroker,
            "Shortest time between Kerberos logins, in milliseconds.";
        ["sasl.kerberos.principal.to.local.rules"] List = "DEFAULT",
            ANY_NAMES, Medium, PerBroker,
            "Rules from Kerberos principals to user names.";
        ["sasl.kerberos.service.name"] String = null,
            Any, Medium, PerBroker,
            "Kerberos principal name of the brokers.";
        ["sasl.kerberos.ticket.renew.jitter"] Double = "0.05",
            Any, Medium, PerBroker,
            "Random part of the Kerberos renewal time.";
        ["sasl.kerberos.ticket.renew.window.factor"] Double = "0.8",
            Any, Medium, PerBroker,
            "Part of a Kerberos ticket's life after which it is renewed.";
        ["sasl.login.callback.handler.class"] Class = null,
            Any, Medium, ReadOnly,
            "Class of the login callback handler.";
        ["sasl.login.class"] Class = null,
            Any, Medium, ReadOnly,
            "Class of the login.";
        ["sasl.login.connect.timeout.ms"] Int = null,
            Any, Low, ReadOnly,
            "Connect timeout to the identity provider, in milliseconds.";
        ["sasl.login.read.timeout.ms"] Int = null,
            Any, Low, ReadOnly,
            "Read timeout from the identity provider, in milliseconds.";
        ["sasl.login.refresh.buffer.seconds"] Short = "300",
            Any, Medium, PerBroker,
            "Shortest remaining life of a credential at refresh, in seconds.";
        ["sasl.login.refresh.min.period.seconds"] Short = "60",
            Any, Medium, PerBroker,
            "Shortest time between credential refreshes, in seconds.";
        ["sasl.login.refresh.window.factor"] Double = "0.8",
            Any, Medium, PerBroker,
            "Part of a credential's life after which it is refreshed.";
        ["sasl.login.refresh.window.jitter"] Double = "0.05",
            Any, Medium, PerBroker,
            "Random part of the refresh time.";
        ["sasl.login.retry.backoff.max.ms"] Long = "10000",
            Any, Low, ReadOnly,
            "Longest wait between login attempts, in milliseconds.";
        ["sasl.login.retry.backoff.ms"] Long = "100",
            Any, Low, ReadOnly,
            "First wait between login attempts, in milliseconds.";
        ["sasl.mechanism.controller.protocol"] String = "GSSAPI",
            Any, High, ReadOnly,
            "SASL mechanism towards controllers.";
        ["sasl.mechanism.inter.broker.protocol"] String = "GSSAPI",
            Any, Medium, PerBroker,
            "SASL mechanism among brokers.";
        ["sasl.oauthbearer.assertion.algorithm"] String = "RS256",
            OneOfIgnoringCase(&["ES256", "RS256"]), Medium, ReadOnly,
            "Algorithm that signs assertions.";
        ["sasl.oauthbearer.assertion.claim.aud"] String = null,
            Any, Medium, ReadOnly,
            "Audience claim of assertions.";
        ["sasl.oauthbearer.assertion.claim.exp.seconds"] Int = "300",
            Between(0, 86_400), Low, ReadOnly,
            "Life of an assertion, in seconds.";
        ["sasl.oauthbearer.assertion.claim.iss"] String = null,
            Any, Medium, ReadOnly,
            "Issuer claim of assertions.";
        ["sasl.oauthbearer.assertion.claim.jti.include"] Boolean = "false",
            Any, Medium, ReadOnly,
            "Whether assertions carry an id.";
        ["sasl.oauthbearer.assertion.claim.nbf.seconds"] Int = "60",
            Between(0, 3600), Low, ReadOnly,
            "How far back an assertion is valid, in seconds.";
        ["sasl.oauthbearer.assertion.claim.sub"] String = null,
            Any, Medium, ReadOnly,
            "Subject claim of assertions.";
        ["sasl.oauthbearer.assertion.file"] String = null,
            Any, Medium, ReadOnly,
            "File of a ready assertion.";
        ["sasl.oauthbearer.assertion.private.key.file"] String = null,
            Any, Medium, ReadOnly,
            "File of the key that signs assertions.";
        ["sasl.oauthbearer.assertion.private.key.passphrase"] Password = null,
            Any, Medium, ReadOnly,
            "Passphrase of the assertion key.";
        ["sasl.oauthbearer.assertion.template.file"] String = null,
            Any, Medium, ReadOnly,
            "File of an assertion's template.";
        ["sasl.oauthbearer.client.credentials.client.id"] String = null,
            Any, Medium, ReadOnly,
            "OAuth client id.";
        ["sasl.oauthbearer.client.credentials.client.secret"] Password = null,
            Any, Medium, ReadOnly,
            "OAuth client secret.";
        ["sasl.oauthbearer.clock.skew.seconds"] Int = "30",
            Any, Low, ReadOnly,
            "Clock difference tolerated towards the identity provider, in seconds.";
        ["sasl.oauthbearer.expected.audience"] List = "",
            ANY_NAMES, High, ReadOnly,
            "Audiences accepted in tokens.";
        ["sasl.oauthbearer.expected.issuer"] String = null,
            Any, High, ReadOnly,
            "Issuer accepted in tokens.";
        ["sasl.oauthbearer.jwks.endpoint.refresh.ms"] Long = "3600000",
            Any, Low, ReadOnly,
            "How often the key set is fetched, in milliseconds.";
        ["sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms"] Long = "10000",
            Any, Low, ReadOnly,
            "Longest wait between key set fetches, in milliseconds.";
        ["sasl.oauthbearer.jwks.endpoint.retry.backoff.ms"] Long = "100",
            Any, Low, ReadOnly,
            "First wait between key set fetches, in milliseconds.";
        ["sasl.oauthbearer.jwks.endpoint.url"] String = null,
            Any, Medium, ReadOnly,
            "URL of the key set.";
        ["sasl.oauthbearer.jwt.retriever.class"] Class = "org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever",
            Any, Medium, ReadOnly,
            "Class that fetches tokens.";
        ["sasl.oauthbearer.jwt.validator.class"] Class = "org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator",
            Any, Medium, ReadOnly,
            "Class that validates tokens.";
        ["sasl.oauthbearer.scope"] String = null,
            Any, Medium, ReadOnly,
            "OAuth scope asked for.";
        ["sasl.oauthbearer.scope.claim.name"] String = "scope",
            Any, Low, ReadOnly,
            "Name of the scope claim.";
        ["sasl.oauthbearer.sub.claim.name"] String = "sub",
            Any, Low, ReadOnly,
            "Name of the subject claim.";
        ["sasl.oauthbearer.token.endpoint.url"] String = null,
            Any, Medium, ReadOnly,
            "URL of the token endpoint.";
        ["sasl.server.callback.handler.class"] Class = null,
            Any, Medium, ReadOnly,
            "Class of the server's callback handler.";
        ["sasl.server.max.receive.size"] Int = "524288",
            Any, Medium, ReadOnly,
            "Largest SASL message accepted, in bytes.";
    }
}

rows! {
    /// Settings that would be dangerous to ignore.
    REFUSED, "Refused", Effect::Refused("Ottla does not support this yet, and ignoring the setting would be misleading"), {
        ["authorizer.class.name"] String = "",
            Any, Low, ReadOnly,
            "Class that authorizes requests.";
        ["alter.config.policy.class.name"] Class = null,
            Any, Low, ReadOnly,
            "Class that may refuse configuration changes.";
        ["create.topic.policy.class.name"] Class = null,
            Any, Low, ReadOnly,
            "Class that may refuse topic creation.";
        ["remote.log.storage.system.enable"] Boolean = "false",
            Any, Medium, ReadOnly,
            "Old segments move to remote storage.";
    }
}

rows! {
    /// Java classes cannot be loaded.
    JAVA, "Java classes", Effect::None("Java classes cannot be loaded"), {
        ["client.quota.callback.class"] Class = null,
            Any, Low, ReadOnly,
            "Class that decides client quotas.";
        ["config.providers"] List = "",
            ANY_NAMES, Low, ClusterWide,
            "Providers that resolve variables in values.";
        ["kafka.metrics.polling.interval.secs"] Int = "10",
            AtLeast(1), Low, ReadOnly,
            "How often metrics reporters poll, in seconds.";
        ["kafka.metrics.reporters"] List = "",
            ANY_NAMES, Low, ReadOnly,
            "Yammer metrics reporter classes.";
        ["metric.reporters"] List = "org.apache.kafka.common.metrics.JmxReporter",
            ANY_NAMES, Low, ClusterWide,
            "Metrics reporter classes.";
        ["replica.selector.class"] String = null,
            Any, Medium, ReadOnly,
            "Class that picks the replica to read from.";
        ["security.providers"] String = null,
            Any, Low, ReadOnly,
            "Java security provider classes.";
        ["group.share.persister.class.name"] String = "org.apache.kafka.server.share.persister.DefaultStatePersister",
            Any, Medium, ReadOnly internal,
            "Class that stores share group state.";
    }
}

rows! {
    /// Metrics are counters without windows.
    METRICS, "Metrics", Effect::None("metrics are counters without windows"), {
        ["metrics.num.samples"] Int = "2",
            AtLeast(1), Low, ReadOnly,
            "Samples behind a windowed metric.";
        ["metrics.recording.level"] String = "INFO",
            Any, Low, ReadOnly,
            "Detail of recorded metrics.";
        ["metrics.sample.window.ms"] Long = "30000",
            AtLeast(1), Low, ReadOnly,
            "Length of a metric's sample, in milliseconds.";
        ["telemetry.max.bytes"] Int = "1048576",
            AtLeast(1), Low, ReadOnly,
            "Largest client telemetry push, in bytes.";
    }
}

rows! {
    /// The runtime has one worker per core and no request queue.
    THREADS, "Threads", Effect::None("the runtime has one worker per core and no request queue"), {
        ["background.threads"] Int = "10",
            AtLeast(1), High, ClusterWide,
            "Threads of background tasks.";
        ["num.io.threads"] Int = "8",
            AtLeast(1), High, ClusterWide,
            "Threads that process requests.";
        ["num.network.threads"] Int = "3",
            AtLeast(1), High, ClusterWide,
            "Threads that read and write sockets, per listener.";
        ["num.replica.alter.log.dirs.threads"] Int = null,
            Any, High, ReadOnly,
            "Threads that move replicas between directories.";
        ["group.coordinator.threads"] Int = "4",
            AtLeast(1), High, ReadOnly,
            "Threads of the group coordinator.";
        ["group.coordinator.background.threads"] Int = "2",
            AtLeast(1), High, ReadOnly,
            "Background threads of the group coordinator.";
        ["queued.max.requests"] Int = "500",
            AtLeast(1), High, ReadOnly,
            "Requests queued before reading pauses; queued.max.request.bytes bounds memory here.";
    }
}

rows! {
    /// A waiting request is removed as soon as it is done, so there is no purge.
    PURGATORY, "Purgatory", Effect::None("a waiting request is removed at the moment it is done"), {
        ["delete.records.purgatory.purge.interval.requests"] Int = "1",
            Any, Medium, ReadOnly,
            "Requests between purges of waiting DeleteRecords.";
        ["fetch.purgatory.purge.interval.requests"] Int = "1000",
            Any, Medium, ReadOnly,
            "Requests between purges of waiting Fetches.";
        ["producer.purgatory.purge.interval.requests"] Int = "1000",
            Any, Medium, ReadOnly,
            "Requests between purges of waiting Produces.";
        ["share.fetch.purgatory.purge.interval.requests"] Int = "1000",
            Any, Medium, ReadOnly,
            "Requests between purges of waiting ShareFetches.";
    }
}

rows! {
    /// Quotas are stored but not enforced yet.
    QUOTA, "Quotas", Effect::None("quotas are stored but not enforced yet"), {
        ["alter.log.dirs.replication.quota.window.num"] Int = "11",
            AtLeast(1), Low, ReadOnly,
            "Samples of the directory move quota.";
        ["alter.log.dirs.replication.quota.window.size.seconds"] Int = "1",
            AtLeast(1), Low, ReadOnly,
            "Length of a directory move quota sample, in seconds.";
        ["controller.quota.window.num"] Int = "11",
            AtLeast(1), Low, ReadOnly,
            "Samples of the controller mutation quota.";
        ["controller.quota.window.size.seconds"] Int = "1",
            AtLeast(1), Low, ReadOnly,
            "Length of a controller mutation quota sample, in seconds.";
        ["quota.window.num"] Int = "11",
            AtLeast(1), Low, ReadOnly,
            "Samples of client quotas.";
        ["quota.window.size.seconds"] Int = "1",
            AtLeast(1), Low, ReadOnly,
            "Length of a client quota sample, in seconds.";
        ["replication.quota.window.num"] Int = "11",
            AtLeast(1), Low, ReadOnly,
            "Samples of the replication quota.";
        ["replication.quota.window.size.seconds"] Int = "1",
            AtLeast(1), Low, ReadOnly,
            "Length of a replication quota sample, in seconds.";
        ["max.connection.creation.rate"] Int = "2147483647",
            AtLeast(0), Medium, ClusterWide,
            "Connections accepted each second.";
    }
}

rows! {
    /// Transactions are not served yet.
    TRANSACTION, "Transactions", Effect::None("transactions are not served yet"), {
        ["add.partitions.to.txn.retry.backoff.max.ms"] Int = "100",
            AtLeast(0), High, ReadOnly,
            "Longest wait for a partition to join a transaction, in milliseconds.";
        ["add.partitions.to.txn.retry.backoff.ms"] Int = "20",
            AtLeast(1), High, ReadOnly,
            "Wait between attempts to add a partition to a transaction, in milliseconds.";
        ["transaction.abort.timed.out.transaction.cleanup.interval.ms"] Int = "10000",
            AtLeast(1), Low, ReadOnly,
            "How often the broker checks for transactions that have timed out, in milliseconds.";
        ["transaction.max.timeout.ms"] Int = "900000",
            AtLeast(1), High, ReadOnly,
            "Longest transaction timeout, in milliseconds.";
        ["transaction.partition.verification.enable"] Boolean = "true",
            Any, Low, ClusterWide,
            "A transactional write is checked with its coordinator.";
        ["transaction.remove.expired.transaction.cleanup.interval.ms"] Int = "3600000",
            AtLeast(1), Low, ReadOnly,
            "How often the broker checks for expired transactional ids, in milliseconds.";
        ["transaction.state.log.load.buffer.size"] Int = "5242880",
            AtLeast(1), High, ReadOnly,
            "Bytes read at a time while transactions are loaded.";
        ["transaction.state.log.min.isr"] Int = "2",
            AtLeast(1), High, ReadOnly,
            "min.insync.replicas of the transaction topic.";
        ["transaction.state.log.num.partitions"] Int = "50",
            AtLeast(1), High, ReadOnly,
            "Partitions of the transaction topic.";
        ["transaction.state.log.replication.factor"] Short = "3",
            AtLeast(1), High, ReadOnly,
            "Replicas of the transaction topic.";
        ["transaction.state.log.segment.bytes"] Int = "104857600",
            AtLeast(1), High, ReadOnly,
            "Segment size of the transaction topic, in bytes.";
        ["transaction.two.phase.commit.enable"] Boolean = "false",
            Any, Low, ReadOnly,
            "A transaction may stay prepared without a timeout.";
        ["transactional.id.expiration.ms"] Int = "604800000",
            AtLeast(1), High, ReadOnly,
            "A transactional id without use is dropped after this long, in milliseconds.";
    }
}

rows! {
    /// Only classic groups are served yet.
    CONSUMER, "Consumer and streams groups", Effect::None("only classic groups are served yet"), {
        ["group.consumer.assignment.interval.ms"] Int = "1000",
            AtLeast(0), Medium, ClusterWide,
            "Shortest time between assignments of a consumer group, in milliseconds.";
        ["group.consumer.assignors"] List = "uniform,range",
            SOME_NAMES, Medium, ReadOnly,
            "Assignors of consumer groups, the first is the default.";
        ["group.consumer.heartbeat.interval.ms"] Int = "5000",
            AtLeast(1), Medium, ReadOnly,
            "Heartbeat interval given to consumer group members, in milliseconds.";
        ["group.consumer.max.assignment.interval.ms"] Int = "15000",
            AtLeast(0), Medium, ReadOnly,
            "Largest assignment interval of a consumer group, in milliseconds.";
        ["group.consumer.max.heartbeat.interval.ms"] Int = "15000",
            AtLeast(1), Medium, ReadOnly,
            "Largest heartbeat interval of a consumer group, in milliseconds.";
        ["group.consumer.max.session.timeout.ms"] Int = "60000",
            AtLeast(1), Medium, ReadOnly,
            "Largest session timeout of a consumer group, in milliseconds.";
        ["group.consumer.max.size"] Int = "2147483647",
            AtLeast(1), Medium, ReadOnly,
            "Most members of a consumer group.";
        ["group.consumer.migration.policy"] String = "bidirectional",
            OneOfIgnoringCase(&["DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL"]), Medium, ReadOnly,
            "Which way groups convert between classic and consumer.";
        ["group.consumer.min.assignment.interval.ms"] Int = "0",
            AtLeast(0), Medium, ReadOnly,
            "Smallest assignment interval of a consumer group, in milliseconds.";
        ["group.consumer.min.heartbeat.interval.ms"] Int = "5000",
            AtLeast(1), Medium, ReadOnly,
            "Smallest heartbeat interval of a consumer group, in milliseconds.";
        ["group.consumer.min.session.timeout.ms"] Int = "45000",
            AtLeast(1), Medium, ReadOnly,
            "Smallest session timeout of a consumer group, in milliseconds.";
        ["group.consumer.regex.refresh.interval.ms"] Int = "600000",
            AtLeast(10_000), Medium, ReadOnly internal,
            "How often subscribed patterns are resolved again, in milliseconds.";
        ["group.consumer.session.timeout.ms"] Int = "45000",
            AtLeast(1), Medium, ReadOnly,
            "Session timeout of consumer group members, in milliseconds.";
        ["group.coordinator.append.linger.ms"] Int = "-1",
            AtLeast(-1), Medium, ReadOnly,
            "How long coordinator writes are gathered, in milliseconds; -1 is adaptive.";
        ["group.coordinator.cached.buffer.max.bytes"] Int = "1048588",
            AtLeast(524_288), Medium, ClusterWide,
            "Largest write buffer the group coordinator keeps, in bytes.";
        ["group.coordinator.rebalance.protocols"] List = "classic,consumer,streams",
            Distinct { allowed: &["consumer", "classic", "share", "streams"], may_be_empty: false }, Medium, ReadOnly,
            "Group protocols offered.";
        ["group.streams.assignment.interval.ms"] Int = "1000",
            AtLeast(0), Medium, ClusterWide,
            "Shortest time between assignments of a streams group, in milliseconds.";
        ["group.streams.heartbeat.interval.ms"] Int = "5000",
            AtLeast(1), Medium, ReadOnly,
            "Heartbeat interval of streams group members, in milliseconds.";
        ["group.streams.initial.rebalance.delay.ms"] Int = "3000",
            AtLeast(0), Medium, ReadOnly,
            "How long a new streams group waits for more members, in milliseconds.";
        ["group.streams.max.assignment.interval.ms"] Int = "15000",
            AtLeast(0), Medium, ReadOnly,
            "Largest assignment interval of a streams group, in milliseconds.";
        ["group.streams.max.heartbeat.interval.ms"] Int = "15000",
            AtLeast(1), Medium, ReadOnly,
            "Largest heartbeat interval of a streams group, in milliseconds.";
        ["group.streams.max.session.timeout.ms"] Int = "60000",
            AtLeast(1), Medium, ReadOnly,
            "Largest session timeout of a streams group, in milliseconds.";
        ["group.streams.max.size"] Int = "2147483647",
            AtLeast(1), Medium, ReadOnly,
            "Most members of a streams group.";
        ["group.streams.max.standby.replicas"] Int = "2",
            AtLeast(0), Medium, ReadOnly,
            "Most standby replicas of a streams group.";
        ["group.streams.min.assignment.interval.ms"] Int = "0",
            AtLeast(0), Medium, ReadOnly,
            "Smallest assignment interval of a streams group, in milliseconds.";
        ["group.streams.min.heartbeat.interval.ms"] Int = "5000",
            AtLeast(1), Medium, ReadOnly,
            "Smallest heartbeat interval of a streams group, in milliseconds.";
        ["group.streams.min.session.timeout.ms"] Int = "45000",
            AtLeast(1), Medium, ReadOnly,
            "Smallest session timeout of a streams group, in milliseconds.";
        ["group.streams.num.standby.replicas"] Int = "0",
            AtLeast(0), Medium, ReadOnly,
            "Standby replicas of a streams group.";
        ["group.streams.session.timeout.ms"] Int = "45000",
            AtLeast(1), Medium, ReadOnly,
            "Session timeout of streams group members, in milliseconds.";
    }
}

rows! {
    /// Share groups are not served yet.
    SHARE, "Share groups", Effect::None("share groups are not served yet"), {
        ["group.share.assignment.interval.ms"] Int = "1000",
            AtLeast(0), Medium, ClusterWide,
            "Shortest time between assignments of a share group, in milliseconds.";
        ["group.share.assignors"] List = "simple",
            SOME_NAMES, Medium, ReadOnly,
            "Assignors of share groups.";
        ["group.share.delivery.count.limit"] Int = "5",
            Between(2, 10), Medium, ReadOnly,
            "Most deliveries of a record before it is archived.";
        ["group.share.heartbeat.interval.ms"] Int = "5000",
            AtLeast(1), Medium, ReadOnly,
            "Heartbeat interval of share group members, in milliseconds.";
        ["group.share.initialize.retry.interval.ms"] Int = "30000",
            AtLeast(1), Low, ReadOnly internal,
            "Wait before a share partition's initialization is tried again, in milliseconds.";
        ["group.share.max.assignment.interval.ms"] Int = "15000",
            AtLeast(0), Medium, ReadOnly,
            "Largest assignment interval of a share group, in milliseconds.";
        ["group.share.max.delivery.count.limit"] Int = "10",
            Between(5, 25), Medium, ReadOnly,
            "Largest delivery count limit of a share group.";
        ["group.share.max.heartbeat.interval.ms"] Int = "15000",
            AtLeast(1), Medium, ReadOnly,
            "Largest heartbeat interval of a share group, in milliseconds.";
        ["group.share.max.partition.max.record.locks"] Int = "4000",
            Between(2000, 10_000), Medium, ReadOnly,
            "Largest record lock limit of a share partition.";
        ["group.share.max.record.lock.duration.ms"] Int = "60000",
            Between(30_000, 3_600_000), Medium, ReadOnly,
            "Longest record lock of a share group, in milliseconds.";
        ["group.share.max.session.timeout.ms"] Int = "60000",
            AtLeast(1), Medium, ReadOnly,
            "Largest session timeout of a share group, in milliseconds.";
        ["group.share.max.share.sessions"] Int = "2000",
            AtLeast(1), Medium, ReadOnly,
            "Share sessions kept at a time.";
        ["group.share.max.size"] Int = "200",
            Between(1, 1000), Medium, ReadOnly,
            "Most members of a share group.";
        ["group.share.min.assignment.interval.ms"] Int = "0",
            AtLeast(0), Medium, ReadOnly,
            "Smallest assignment interval of a share group, in milliseconds.";
        ["group.share.min.delivery.count.limit"] Int = "2",
            Between(2, 5), Medium, ReadOnly,
            "Smallest delivery count limit of a share group.";
        ["group.share.min.heartbeat.interval.ms"] Int = "5000",
            AtLeast(1), Medium, ReadOnly,
            "Smallest heartbeat interval of a share group, in milliseconds.";
        ["group.share.min.partition.max.record.locks"] Int = "100",
            Between(100, 2000), Medium, ReadOnly,
            "Smallest record lock limit of a share partition.";
        ["group.share.min.record.lock.duration.ms"] Int = "15000",
            Between(1000, 30_000), Medium, ReadOnly,
            "Shortest record lock of a share group, in milliseconds.";
        ["group.share.min.session.timeout.ms"] Int = "45000",
            AtLeast(1), Medium, ReadOnly,
            "Smallest session timeout of a share group, in milliseconds.";
        ["group.share.partition.max.record.locks"] Int = "2000",
            Between(100, 10_000), Medium, ReadOnly,
            "Records locked at a time in a share partition.";
        ["group.share.record.lock.duration.ms"] Int = "30000",
            Between(1000, 3_600_000), Medium, ReadOnly,
            "How long a delivered record stays locked, in milliseconds.";
        ["group.share.session.timeout.ms"] Int = "45000",
            AtLeast(1), Medium, ReadOnly,
            "Session timeout of share group members, in milliseconds.";
        ["share.coordinator.append.linger.ms"] Int = "-1",
            AtLeast(-1), Medium, ReadOnly,
            "How long share coordinator writes are gathered, in milliseconds; -1 is adaptive.";
        ["share.coordinator.cached.buffer.max.bytes"] Int = "1048588",
            AtLeast(524_288), Medium, ClusterWide,
            "Largest write buffer the share coordinator keeps, in bytes.";
        ["share.coordinator.cold.partition.snapshot.interval.ms"] Int = "300000",
            AtLeast(1), Low, ReadOnly internal,
            "How often idle share partitions are written, in milliseconds.";
        ["share.coordinator.load.buffer.size"] Int = "5242880",
            AtLeast(1), High, ReadOnly,
            "Bytes read at a time while share state is loaded.";
        ["share.coordinator.snapshot.update.records.per.snapshot"] Int = "500",
            Between(0, 500), Medium, ReadOnly,
            "Updates between two snapshots of share state.";
        ["share.coordinator.state.topic.compression.codec"] Int = "0",
            Any, High, ReadOnly,
            "Codec of the share state topic: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.";
        ["share.coordinator.state.topic.min.isr"] Short = "2",
            AtLeast(1), High, ReadOnly,
            "min.insync.replicas of the share state topic.";
        ["share.coordinator.state.topic.num.partitions"] Int = "50",
            AtLeast(1), High, ReadOnly,
            "Partitions of the share state topic.";
        ["share.coordinator.state.topic.prune.interval.ms"] Int = "300000",
            AtLeast(1), Low, ReadOnly internal,
            "How often the share state topic is pruned, in milliseconds.";
        ["share.coordinator.state.topic.replication.factor"] Short = "3",
            AtLeast(1), High, ReadOnly,
            "Replicas of the share state topic.";
        ["share.coordinator.state.topic.segment.bytes"] Int = "104857600",
            AtLeast(1), High, ReadOnly,
            "Segment size of the share state topic, in bytes.";
        ["share.coordinator.threads"] Int = "1",
            AtLeast(1), Medium, ReadOnly,
            "Threads of the share coordinator.";
        ["share.coordinator.write.timeout.ms"] Int = "5000",
            AtLeast(1), High, ReadOnly,
            "A share state write is refused when not replicated within this time, in milliseconds.";
    }
}

rows! {
    /// Tiered storage is not served yet.
    TIERED, "Tiered storage", Effect::None("tiered storage is not served yet"), {
        ["follower.fetch.last.tiered.offset.enable"] Boolean = "false",
            Any, Medium, ClusterWide,
            "A new replica starts at the last tiered offset.";
        ["remote.fetch.max.wait.ms"] Int = "500",
            AtLeast(1), Medium, ClusterWide,
            "Longest wait of a Fetch for remote data, in milliseconds.";
        ["remote.list.offsets.request.timeout.ms"] Long = "30000",
            AtLeast(1), Medium, ClusterWide,
            "Longest wait of a ListOffsets for remote data, in milliseconds.";
        ["remote.log.index.file.cache.total.size.bytes"] Long = "1073741824",
            AtLeast(1), Low, ClusterWide,
            "Disk for cached remote indexes, in bytes.";
        ["remote.log.index.file.cache.ttl.ms"] Long = "900000",
            AtLeast(-1), Low, ReadOnly internal,
            "Life of a cached remote index, in milliseconds.";
        ["remote.log.manager.copier.thread.pool.size"] Int = "10",
            AtLeast(1), Medium, ClusterWide,
            "Threads that copy segments out.";
        ["remote.log.manager.copy.max.bytes.per.second"] Long = "9223372036854775807",
            AtLeast(1), Medium, ClusterWide,
            "Most bytes copied out each second.";
        ["remote.log.manager.copy.quota.window.num"] Int = "11",
            AtLeast(1), Medium, ReadOnly,
            "Samples of the copy quota.";
        ["remote.log.manager.copy.quota.window.size.seconds"] Int = "1",
            AtLeast(1), Medium, ReadOnly,
            "Length of a copy quota sample, in seconds.";
        ["remote.log.manager.expiration.thread.pool.size"] Int = "10",
            AtLeast(1), Medium, ClusterWide,
            "Threads that delete remote segments.";
        ["remote.log.manager.fetch.max.bytes.per.second"] Long = "9223372036854775807",
            AtLeast(1), Medium, ClusterWide,
            "Most remote bytes read each second.";
        ["remote.log.manager.fetch.quota.window.num"] Int = "11",
            AtLeast(1), Medium, ReadOnly,
            "Samples of the remote fetch quota.";
        ["remote.log.manager.fetch.quota.window.size.seconds"] Int = "1",
            AtLeast(1), Medium, ReadOnly,
            "Length of a remote fetch quota sample, in seconds.";
        ["remote.log.manager.follower.thread.pool.size"] Int = "2",
            AtLeast(1), Medium, ClusterWide,
            "Threads of followers of tiered partitions.";
        ["remote.log.manager.task.interval.ms"] Long = "30000",
            AtLeast(1), Low, ReadOnly,
            "How often segments are copied and deleted, in milliseconds.";
        ["remote.log.manager.task.retry.backoff.max.ms"] Long = "30000",
            AtLeast(1), Low, ReadOnly internal,
            "Longest wait between remote attempts, in milliseconds.";
        ["remote.log.manager.task.retry.backoff.ms"] Long = "500",
            AtLeast(1), Low, ReadOnly internal,
            "First wait between remote attempts, in milliseconds.";
        ["remote.log.manager.task.retry.jitter"] Double = "0.2",
            Within(0.0, 0.5), Low, ReadOnly internal,
            "Random part of the remote retry time.";
        ["remote.log.manager.thread.pool.size"] Int = "2",
            AtLeast(1), Medium, ReadOnly,
            "Threads of remote storage.";
        ["remote.log.metadata.custom.metadata.max.bytes"] Int = "128",
            AtLeast(0), Low, ReadOnly,
            "Largest custom metadata of a remote segment, in bytes.";
        ["remote.log.metadata.manager.class.name"] String = "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager",
            NonEmpty, Medium, ReadOnly,
            "Class that stores remote segments' metadata.";
        ["remote.log.metadata.manager.class.path"] String = null,
            Any, Medium, ReadOnly,
            "Class path of the remote metadata manager.";
        ["remote.log.metadata.manager.impl.prefix"] String = "rlmm.config.",
            NonEmpty, Medium, ReadOnly,
            "Prefix of the remote metadata manager's settings.";
        ["remote.log.metadata.manager.listener.name"] String = null,
            NonEmpty, Medium, ReadOnly,
            "Listener of the remote metadata manager.";
        ["remote.log.reader.max.pending.tasks"] Int = "100",
            AtLeast(1), Medium, ReadOnly,
            "Remote reads that may wait.";
        ["remote.log.reader.threads"] Int = "10",
            AtLeast(1), Medium, ClusterWide,
            "Threads that read remote segments.";
        ["remote.log.storage.manager.class.name"] String = null,
            NonEmpty, Medium, ReadOnly,
            "Class that stores remote segments.";
        ["remote.log.storage.manager.class.path"] String = null,
            Any, Medium, ReadOnly,
            "Class path of the remote storage manager.";
        ["remote.log.storage.manager.impl.prefix"] String = "rsm.config.",
            NonEmpty, Medium, ReadOnly,
            "Prefix of the remote storage manager's settings.";
    }
}

rows! {
    /// The cluster has one node.
    CLUSTER, "Clusters", Effect::None("the cluster has one node"), {
        ["controlled.shutdown.enable"] Boolean = "true",
            Any, Medium, ReadOnly,
            "Leaders are moved away before a broker stops.";
        ["controller.performance.always.log.threshold.ms"] Long = "2000",
            AtLeast(0), Medium, ReadOnly internal,
            "Controller events slower than this are logged, in milliseconds.";
        ["controller.performance.sample.period.ms"] Long = "60000",
            AtLeast(100), Medium, ReadOnly internal,
            "How often controller performance is logged, in milliseconds.";
        ["controller.quorum.append.linger.ms"] Int = "25",
            AtLeast(0), Medium, ReadOnly,
            "How long metadata writes are gathered, in milliseconds.";
        ["controller.quorum.election.backoff.max.ms"] Int = "1000",
            AtLeast(0), High, ReadOnly,
            "Longest wait before a new election, in milliseconds.";
        ["controller.quorum.election.timeout.ms"] Int = "1000",
            AtLeast(0), High, ReadOnly,
            "Longest wait for the quorum's leader before an election, in milliseconds.";
        ["controller.quorum.fetch.max.bytes"] Int = "1048576",
            AtLeast(1), Low, ReadOnly,
            "Most bytes of metadata log fetched at a time.";
        ["controller.quorum.fetch.snapshot.max.bytes"] Int = "1048576",
            AtLeast(1), Low, ReadOnly,
            "Most bytes of metadata snapshot fetched at a time.";
        ["controller.quorum.fetch.timeout.ms"] Int = "2000",
            AtLeast(0), High, ReadOnly,
            "A quorum follower without an answer for this long becomes a candidate, in milliseconds.";
        ["controller.quorum.request.timeout.ms"] Int = "2000",
            AtLeast(0), Medium, ReadOnly,
            "Longest wait for a quorum answer, in milliseconds.";
        ["controller.quorum.retry.backoff.ms"] Int = "20",
            AtLeast(0), Low, ReadOnly,
            "Wait before a quorum request is tried again, in milliseconds.";
        ["controller.socket.timeout.ms"] Int = "30000",
            Any, Medium, ReadOnly,
            "Socket timeout towards the controller, in milliseconds.";
        ["cordoned.log.dirs"] List = "",
            ANY_NAMES, Medium, PerBroker,
            "Data directories that take no new partitions.";
        ["initial.broker.registration.timeout.ms"] Int = "60000",
            Any, Medium, ReadOnly,
            "A broker not registered within this time stops, in milliseconds.";
        ["log.dir.failure.timeout.ms"] Long = "30000",
            AtLeast(1), Low, ReadOnly,
            "A broker that cannot report a failed directory within this time stops, in milliseconds.";
        ["replica.socket.receive.buffer.bytes"] Int = "65536",
            Any, High, ReadOnly,
            "Receive buffer of replica fetches.";
        ["request.timeout.ms"] Int = "30000",
            Any, High, ReadOnly,
            "Longest wait for an answer of another broker, in milliseconds.";
        ["socket.connection.setup.timeout.max.ms"] Long = "30000",
            Any, Medium, ReadOnly,
            "Longest wait for a connection to another broker, in milliseconds.";
        ["socket.connection.setup.timeout.ms"] Long = "10000",
            Any, Medium, ReadOnly,
            "First wait for a connection to another broker, in milliseconds.";
    }
}

rows! {
    /// The broker starts and opens its listeners as one step.
    START, "Start", Effect::None("the broker starts and opens its listeners as one step"), {
        ["early.start.listeners"] List = null,
            ANY_NAMES, High, ReadOnly,
            "Listeners that open before the authorizer is ready.";
        ["server.max.startup.time.ms"] Long = "9223372036854775807",
            AtLeast(0), Medium, ReadOnly internal,
            "Longest time a start may take, in milliseconds.";
    }
}

rows! {
    /// Settings for internals of Apache Kafka.
    INTERNALS, "Internals", Effect::None("it belongs to the inside of Apache Kafka"), {
        ["log.initial.task.delay.ms"] Long = "30000",
            AtLeast(0), Low, ReadOnly internal,
            "How long after start the first retention check runs, in milliseconds.";
        ["internal.metadata.delete.delay.millis"] Long = "60000",
            Any, Low, ReadOnly internal,
            "Delay before metadata log files are deleted, in milliseconds.";
        ["internal.metadata.log.segment.bytes"] Int = null,
            Any, Low, ReadOnly internal,
            "Segment size of the metadata log in tests, in bytes.";
        ["internal.metadata.max.batch.size.in.bytes"] Int = "8388608",
            Any, Low, ReadOnly internal,
            "Largest metadata batch, in bytes.";
        ["metadata.max.idle.interval.ms"] Int = "500",
            AtLeast(0), Low, ReadOnly,
            "How often an idle controller writes a no-op record, in milliseconds; an idle broker stays idle here.";
        ["unstable.api.versions.enable"] Boolean = "false",
            Any, High, ReadOnly internal,
            "API versions still being made are offered.";
        ["unstable.feature.versions.enable"] Boolean = "false",
            Any, High, ReadOnly internal,
            "Feature versions still being made are offered.";
    }
}

rows! {
    /// The system sizes socket buffers and queues by itself.
    SOCKETS, "Sockets", Effect::None("the operating system chooses the sizes of socket buffers and queues"), {
        ["socket.listen.backlog.size"] Int = "50",
            AtLeast(1), Medium, ReadOnly,
            "Connections that may wait to be accepted.";
        ["socket.send.buffer.bytes"] Int = "102400",
            Any, High, ReadOnly,
            "Send buffer of a connection (SO_SNDBUF); -1 keeps the system's default.";
        ["socket.receive.buffer.bytes"] Int = "102400",
            Any, High, ReadOnly,
            "Receive buffer of a connection (SO_RCVBUF); -1 keeps the system's default.";
    }
}

rows! {
    /// Offsets are written uncompressed.
    OFFSETS, "Offsets topic", Effect::None("offsets are written uncompressed"), {
        ["offsets.topic.compression.codec"] Int = "0",
            Any, High, ReadOnly,
            "Codec of the offsets topic: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.";
    }
}

rows! {
    /// A metadata snapshot is written after a number of bytes, and the log before it is deleted.
    SNAPSHOTS, "Metadata snapshots", Effect::None("a snapshot is written by size, and the records that it contains are removed from the log"), {
        ["metadata.log.max.snapshot.interval.ms"] Long = "3600000",
            AtLeast(0), High, ReadOnly,
            "Longest time between snapshots of changed metadata, in milliseconds; 0 is no such limit.";
        ["metadata.max.retention.bytes"] Long = "104857600",
            Any, High, ReadOnly,
            "Bytes of metadata log and snapshots kept before the oldest are deleted.";
        ["metadata.max.retention.ms"] Long = "604800000",
            Any, High, ReadOnly,
            "Age at which metadata log segments and snapshots are deleted, in milliseconds.";
    }
}

/// The groups, in the order of the docs.
pub(super) const GROUPS: &[&[Definition]] = &[
    NODE,
    TLS,
    SASL,
    REFUSED,
    JAVA,
    METRICS,
    THREADS,
    PURGATORY,
    QUOTA,
    TRANSACTION,
    CONSUMER,
    SHARE,
    TIERED,
    CLUSTER,
    SOCKETS,
    OFFSETS,
    SNAPSHOTS,
    START,
    INTERNALS,
];

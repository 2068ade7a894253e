//! Maps `KAFKA_…` variables to settings, like the official container image.
//!
//! `KAFKA_LOG_SEGMENT_BYTES` is `log.segment.bytes`: the prefix is removed, upper case becomes lower case, `_` a dot,
//! `__` an underscore, `___` a dash. `KAFKA_CFG_…` (Bitnami's prefix) means the same.

/// The meaning of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    /// A setting with this name.
    Setting(String),
    /// The cluster id.
    ClusterId,
    /// None: the variable belongs to another program or only to the Java image.
    Ignored,
}

/// Variables that only the scripts of the Java image and the JVM use.
const IMAGE_ONLY: &[&str] = &[
    "KAFKA_VERSION",
    "KAFKA_HEAP_OPTS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_OPTS",
    "KAFKA_JMX_OPTS",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
    "KAFKA_JMX_HOSTNAME",
    "KAFKA_JMX_PORT",
    "KAFKA_HOME",
    "KAFKA_DEBUG",
    "KAFKA_SSL_KEYSTORE_FILENAME",
    "KAFKA_SSL_KEYSTORE_CREDENTIALS",
    "KAFKA_SSL_KEY_CREDENTIALS",
    "KAFKA_SSL_TRUSTSTORE_FILENAME",
    "KAFKA_SSL_TRUSTSTORE_CREDENTIALS",
];

/// Returns the meaning of a variable.
pub(super) fn classify(name: &str, value: &str) -> Variable {
    if name == "CLUSTER_ID" || name == "KAFKA_KRAFT_CLUSTER_ID" {
        return Variable::ClusterId;
    }
    let Some(rest) = name.strip_prefix("KAFKA_CFG_").or_else(|| name.strip_prefix("KAFKA_")) else {
        return Variable::Ignored;
    };
    if rest.is_empty() || IMAGE_ONLY.contains(&name) || is_service_link(name, value) {
        return Variable::Ignored;
    }
    let dotted = rest.to_lowercase().replace('_', ".");
    Variable::Setting(dotted.replace("...", "-").replace("..", "_"))
}

/// For a service named `kafka` or `kafka-…`, Kubernetes sets `KAFKA_SERVICE_HOST`, `KAFKA_PORT=tcp://…` and similar
/// variables in every pod.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = value.starts_with("tcp://") || value.starts_with("udp://");
    let port = name.find("_PORT_").map(|at| &name[at + "_PORT_".len()..]);
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && is_url)
        || port.is_some_and(|port| port.starts_with(|c: char| c.is_ascii_digit()))
}

/// If only advertised listeners are given, the image derives `listeners` from them: the same names and ports, on all
/// interfaces.
pub(super) fn listeners_from_advertised(advertised: &str) -> String {
    let on_every_interface = |listener: &str| match (listener.split_once("://"), listener.rsplit_once(':')) {
        (Some((name, _)), Some((_, port))) => format!("{name}://0.0.0.0:{port}"),
        _ => listener.to_owned(),
    };
    advertised.split(',').map(|listener| on_every_interface(listener.trim())).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str) -> Variable {
        Variable::Setting(name.to_owned())
    }

    #[test]
    fn names_are_mapped_as_the_official_image_does() {
        assert_eq!(classify("KAFKA_LOG_SEGMENT_BYTES", "1"), setting("log.segment.bytes"));
        assert_eq!(classify("KAFKA_CFG_NODE_ID", "1"), setting("node.id"));
        assert_eq!(
            classify("KAFKA_LISTENER_NAME_A__B___C_MAX_CONNECTIONS", "1"),
            setting("listener.name.a_b-c.max.connections")
        );
        assert_eq!(classify("CLUSTER_ID", "x"), Variable::ClusterId);
        assert_eq!(classify("PATH", "x"), Variable::Ignored);
    }

    #[test]
    fn what_is_meant_for_others_is_ignored() {
        for (name, value) in [
            ("KAFKA_HEAP_OPTS", "-Xmx1g"),
            ("KAFKA_SERVICE_HOST", "10.0.0.1"),
            ("KAFKA_UI_SERVICE_PORT_HTTP", "80"),
            ("KAFKA_PORT", "tcp://10.0.0.1:9092"),
            ("KAFKA_PORT_9092_TCP_ADDR", "10.0.0.1"),
        ] {
            assert_eq!(classify(name, value), Variable::Ignored, "{name}");
        }
    }

    #[test]
    fn listeners_follow_the_advertised_ones() {
        assert_eq!(
            listeners_from_advertised("PLAINTEXT://broker:19092,HOST://[::1]:9092"),
            "PLAINTEXT://0.0.0.0:19092,HOST://0.0.0.0:9092"
        );
    }
}

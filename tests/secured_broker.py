"""What a broker is told so that it listens with TLS too, for who logs in and for who has a certificate."""

from collections.abc import Mapping

from tests.certificates import Authority

_MODULES = "org.apache.kafka.common.security"


def with_listeners(
    plain: Mapping[str, str], authority: Authority, listeners: Mapping[str, str], *, user: str, password: str
) -> dict[str, str]:
    """Return a broker's properties with more listeners.

    Parameters
    ----------
    plain
        Its properties without them.
    authority
        Signs its certificate, and those of its clients.
    listeners
        Their addresses by security protocol: ``SASL_SSL``, which takes the user's password by PLAIN and whatever was
        set for SCRAM-SHA-512, and ``SSL``, which asks for a certificate.
    """
    cert_file, key_file = authority.issue("127.0.0.1")
    keystore = cert_file.with_name("broker.pem")
    keystore.write_bytes(key_file.read_bytes() + cert_file.read_bytes())
    more = "".join(f",{protocol}://{address}" for protocol, address in listeners.items())
    protocols = {"CONTROLLER": "PLAINTEXT", "PLAINTEXT": "PLAINTEXT"} | {name: name for name in listeners}
    login = f"{_MODULES}.plain.PlainLoginModule required"
    return {
        **plain,
        "listeners": plain["listeners"] + more,
        "advertised.listeners": plain["advertised.listeners"] + more,
        "listener.security.protocol.map": ",".join(f"{name}:{how}" for name, how in protocols.items()),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.ca_file),
        "listener.name.ssl.ssl.client.auth": "required",
        "listener.name.sasl_ssl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{login} user_{user}="{password}";',
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;",
    }

//! Where events come from: JSON lines, syslog. Blocking, a thread a connection.

//! Sending captures as real senders do.

use super::*;

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// SR with one block, SDES with a CNAME, as phones send it.
fn compound() -> Vec<u8> {
    let mut data = words(&[
        0x81c8_000c, // version 2, one block, SR, 12 words
        0x1111_1111, // sender
        0xb44d_b705, // NTP
        0x2000_0000,
        16_000,      // RTP timestamp
        100,         // packets
        16_000,      // bytes
        0x2222_2222, // block: source
        0x40ff_fffe, // a quarter lost, -2 in all
        0x0001_0005,
        80,
        0xb705_2000,
        0x0005_4000,
    ]);
    data.extend(words(&[0x81ca_0004, 0x1111_1111])); // SDES, one chunk, 4 words
    data.extend_from_slice(b"\x01\x09a@phone.x\0");
    data
}

fn reports_of(data: &[u8]) -> (RtcpKind, Vec<Report<'_>>) {
    let mut reports = Vec::new();
    let kind = parse_rtcp(data, false, |report| reports.push(report));
    (kind, reports)
}

#[test]
fn a_compound_of_sender_report_and_cname_is_read() {
    let data = compound();
    let (kind, reports) = reports_of(&data);
    let block = ReportBlock {
        ssrc: 0x2222_2222,
        fraction_lost: 64,
        cumulative_lost: -2,
        highest_sequence: 0x0001_0005,
        jitter: 80,
        last_sr: 0xb705_2000,
        delay_since_last_sr: 0x0005_4000,
    };
    let sender = Report::Sender {
        ssrc: 0x1111_1111,
        ntp_middle: 0xb705_2000,
        rtp_timestamp: 16_000,
        packets: 100,
        bytes: 16_000,
    };
    let cname = Report::Cname { ssrc: 0x1111_1111, cname: b"a@phone.x" };
    assert_eq!(kind, RtcpKind::Plain);
    assert_eq!(reports, [sender, Report::Block { reporter: 0x1111_1111, block }, cname]);
}

#[test]
fn a_bye_of_several_sources_and_a_reduced_size_packet_are_read() {
    let data = words(&[0x82cb_0002, 1, 2]);
    assert_eq!(reports_of(&data), (RtcpKind::Plain, vec![Report::Bye { ssrc: 1 }, Report::Bye { ssrc: 2 }]));
    let picture_loss = words(&[0x81ce_0002, 1, 2]);
    assert_eq!(reports_of(&picture_loss), (RtcpKind::Plain, vec![]));
    let empty_report = words(&[0x80c9_0001, 1]);
    assert_eq!(reports_of(&empty_report), (RtcpKind::Plain, vec![]));
}

#[test]
fn several_chunks_of_sdes_are_read() {
    let mut data = words(&[0x82ca_0006, 1]);
    data.extend_from_slice(b"\x06\x02pc\x01\x01a\0"); // TOOL, then CNAME; the zero ends the second word
    data.extend(words(&[2]));
    data.extend_from_slice(b"\x01\x03xyz\0\0\0");
    let cnames = vec![Report::Cname { ssrc: 1, cname: b"a" }, Report::Cname { ssrc: 2, cname: b"xyz" }];
    assert_eq!(reports_of(&data), (RtcpKind::Plain, cnames));
}

#[test]
fn padding_of_the_last_packet_is_no_content() {
    let data = words(&[0xa1c9_0008, 1, 2, 0, 0, 0, 0, 0, 4]);
    assert_eq!(reports_of(&data).1.len(), 1);
    let too_much = words(&[0xa1c9_0008, 1, 2, 0, 0, 0, 0, 0, 8]);
    assert_eq!(reports_of(&too_much).0, RtcpKind::Encrypted, "the block does not fit");
}

#[test]
fn voip_metrics_are_read() {
    let mut data = words(&[0x80cf_000a, 1, 0x0700_0008, 2]);
    data.extend_from_slice(&[
        3, 4, 0, 0, 0, 0, 0, 0, 0, 150, 0, 40, 0, 0, 0, 16, 93, 127, 41, 127, 0, 0, 0, 0,
    ]);
    data.extend_from_slice(&[0, 0, 0, 0]);
    let metrics = VoipMetrics {
        ssrc: 2,
        loss_rate: 3,
        discard_rate: 4,
        round_trip_ms: 150,
        end_system_delay_ms: 40,
        r_factor: Some(93),
        mos_lq: Some(41),
        mos_cq: None,
    };
    assert_eq!(reports_of(&data), (RtcpKind::Plain, vec![Report::Voip { reporter: 1, metrics }]));
}

#[test]
fn encrypted_reports_are_told_and_not_read() {
    // The header and SSRC of the first packet are in the clear; the rest, the index and the tag are noise.
    let mut noise = 0x9e37_79b9_u32;
    let mut encrypted = 0;
    for _ in 0..1_000 {
        let mut data = compound();
        for byte in &mut data[8..] {
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            *byte = noise as u8;
        }
        data.extend(words(&[0x8000_0001, noise, noise.rotate_left(9), 0])[..14].iter());
        encrypted += usize::from(reports_of(&data) == (RtcpKind::Encrypted, vec![]));
    }
    assert_eq!(encrypted, 1_000);
    let single = [words(&[0x80c9_0001, 1, 0x8000_0007]), vec![0x5a; 10]].concat();
    assert_eq!(reports_of(&single), (RtcpKind::Encrypted, vec![]));
}

#[test]
fn a_snaplen_cut_keeps_the_packets_before_it() {
    let data = compound();
    let mut count = 0;
    assert_eq!(parse_rtcp(&data[..60], true, |_| count += 1), RtcpKind::Plain);
    assert_eq!(count, 2);
    assert_eq!(parse_rtcp(&data[..20], true, |_| count += 1), RtcpKind::Malformed);
}

#[test]
fn every_prefix_and_random_bytes_are_harmless() {
    let data = compound();
    for length in 0..data.len() {
        parse_rtcp(&data[..length], false, |_| {});
        parse_rtcp(&data[..length], true, |_| {});
    }
    let mut state = 0x1234_5678_u32;
    for round in 0..100_000 {
        let mut data = compound();
        for _ in 0..round % 7 {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let index = state as usize % data.len();
            data[index] = (state >> 24) as u8;
        }
        data.truncate(state as usize % (data.len() + 1));
        parse_rtcp(&data, round % 2 == 0, |_| {});
    }
}

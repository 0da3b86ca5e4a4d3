use super::*;

/// Something about the pod `ns/pod`.
pub(in crate::events) fn notice(kind: EventKind, note: &str) -> Notice {
    notice_to("ns", "pod", kind, note)
}

/// Something about a pod whose UID is its name.
pub(in crate::events) fn notice_to(
    namespace: &str,
    pod: &str,
    kind: EventKind,
    note: &str,
) -> Notice {
    Notice {
        regarding: ObjectReference {
            uid: Some(pod.into()),
            namespace: Some(namespace.into()),
            name: Some(pod.into()),
            ..ObjectReference::default()
        },
        related: None,
        aspect: Aspect::State,
        kind,
        reason: "Reason".into(),
        note: note.into(),
        topic: None,
        since: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn a_name_depends_on_the_subject_and_the_reason_and_on_nothing_else() {
    let base = notice(EventKind::Warning, "note");
    let mut same = notice(EventKind::Warning, "another note");
    same.since = Timestamp::MAX;
    same.related = Some(ObjectReference {
        uid: Some("of a Pki that was made anew".into()),
        ..ObjectReference::default()
    });
    assert_eq!(base.event_name(), same.event_name());
    let mut others = vec![base.clone(); 5];
    others[0].kind = EventKind::Normal;
    others[1].aspect = Aspect::Refusal;
    others[2].reason = "Another".into();
    others[3].regarding.uid = Some("v".into());
    others[4].related = Some(ObjectReference {
        name: Some("other-pki".into()),
        ..ObjectReference::default()
    });
    for other in others {
        assert_ne!(base.event_name(), other.event_name());
    }
}

#[test]
fn all_replicas_publish_that_a_pki_is_ready_in_one_event() {
    let ready = [Aspect::State, Aspect::Refusal].map(|aspect| Notice {
        aspect,
        ..notice(EventKind::Normal, "ready")
    });
    assert_eq!(ready[0].event_name(), ready[1].event_name());
    assert_ne!(ready[0].dedup_key(), ready[1].dedup_key());
}

#[test]
fn names_stand_in_the_order_of_what_usually_happens() {
    // A name as the kubelet makes it, in the last second in which it begins with 1.
    let kubelet = format!("pod.{:x}", 0x1fff_ffff_ffff_ffff_u64);
    let names =
        [EventKind::Warning, EventKind::Normal].map(|kind| notice(kind, "note").event_name());
    assert!(kubelet < names[0] && names[0] < names[1], "{names:?}");
}

#[test]
fn a_topic_makes_two_messages_one() {
    let mut notices = ["3 pods", "4 pods"].map(|note| notice(EventKind::Warning, note));
    assert_ne!(notices[0].content(), notices[1].content());
    for notice in &mut notices {
        notice.topic = Some("pods".into());
    }
    assert_eq!(notices[0].content(), notices[1].content());
}

#[test]
fn normal_events_refusals_and_faults_have_a_budget_each() {
    let of = |kind, aspect| {
        let notice = Notice {
            aspect,
            ..notice(kind, "note")
        };
        (notice.budget(), notice.is_refusal())
    };
    let fault = of(EventKind::Warning, Aspect::State);
    let refusal = of(EventKind::Warning, Aspect::Refusal);
    let resolved = of(EventKind::Normal, Aspect::State);
    assert_eq!(of(EventKind::Normal, Aspect::Refusal), resolved);
    assert_eq!(of(EventKind::Warning, Aspect::Restart), fault);
    assert!(refusal.1 && !fault.1 && !resolved.1);
    assert!(fault.0 != refusal.0 && refusal.0 != resolved.0 && resolved.0 != fault.0);
}

#[test]
fn the_dedup_key_is_the_same_for_a_fault_and_its_end() {
    let bad = notice(EventKind::Warning, "bad");
    assert_eq!(
        bad.dedup_key(),
        notice(EventKind::Normal, "good").dedup_key()
    );
    let mut others = vec![bad.clone(); 4];
    others[0].aspect = Aspect::Renewal;
    others[1].regarding.uid = Some("v".into());
    others[2].related = Some(ObjectReference {
        uid: Some("pki".into()),
        ..ObjectReference::default()
    });
    others[3].related = Some(ObjectReference {
        name: Some("pki".into()),
        ..ObjectReference::default()
    });
    for other in others {
        assert_ne!(bad.dedup_key(), other.dedup_key());
    }
    let hints = ["one", "another"].map(|note| Notice {
        aspect: Aspect::Name,
        ..notice(EventKind::Warning, note)
    });
    assert_ne!(hints[0].dedup_key(), hints[1].dedup_key());
}

#[test]
fn a_name_is_valid_for_the_longest_pod_name() {
    let mut longest = notice(EventKind::Warning, "note");
    longest.regarding.name = Some(format!("{}.{}", "a".repeat(199), "b".repeat(53)));
    let name = longest.event_name();
    assert!(name.len() <= 253 && !name.contains(".."), "{name}");
}

#[test]
fn an_event_is_within_the_limits_of_the_api() {
    let mut long = notice(EventKind::Warning, &"ü€".repeat(1000));
    long.reason = "R".repeat(1000);
    let event = long.event(&"i".repeat(1000), Timestamp::UNIX_EPOCH);
    let lengths = [event.message, event.reason, event.reporting_instance];
    let lengths = lengths.map(|field| field.unwrap().len());
    assert!(
        lengths[0] <= 1024 && lengths[1] <= 128 && lengths[2] <= 128,
        "{lengths:?}"
    );
}

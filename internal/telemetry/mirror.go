package telemetry

// MirrorResult is what became of a copy of a request.
type MirrorResult string

// The results of mirroring.
const (
	MirrorSent    MirrorResult = "sent"    // it was answered, however
	MirrorFailed  MirrorResult = "failed"  // there was no answer
	MirrorDropped MirrorResult = "dropped" // it was not sent: too many at a time, too large a body, or one that did not come to its end
)

// Mirrored counts one copy of a request. A nil *Metrics counts nothing.
func (m *Metrics) Mirrored(r MirrorResult) {
	if m != nil {
		m.mirrored.WithLabelValues(string(r)).Inc()
	}
}

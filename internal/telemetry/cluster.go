package telemetry

import "time"

func (m *Metrics) defineCluster() {
	m.watchEvents = m.counter("watch_events_total", "Objects that the API server told of, by kind and by what had become of them; list is one whole list.", "kind", "event")
	m.watchErrors = m.counter("watch_errors_total", "Lists and watches of the API server that failed.", "kind")
	m.watchSynced = m.gauge("watch_synced", "Whether everything in the cluster was listed once: nothing is served before.").WithLabelValues()
	m.statusUpdates = m.counter("status_updates_total", "Attempts to write the status of an object, by how they ended.", "kind", "result")
	m.statusEvents = m.counter("status_events_total", "Attempts to create an Event about an object, by how they ended.", "result")
	m.statusWaiting = m.gauge("status_waiting_objects", "Objects whose status is still to be written.").WithLabelValues()
	m.serviceWrites = m.counter("gateway_service_writes_total", "Attempts to write a Service of a Gateway, by how they ended.", "verb", "result")
	m.leader = m.gauge("leader", "Whether this replica is the one that writes statuses and Services.").WithLabelValues()
}

// Watched counts what the API server told of an object of a kind.
func (m *Metrics) Watched(kind, event string) {
	if m != nil {
		m.watchEvents.WithLabelValues(kind, event).Inc()
	}
}

// WatchFailed counts a list or a watch that failed.
func (m *Metrics) WatchFailed(kind string) {
	if m != nil {
		m.watchErrors.WithLabelValues(kind).Inc()
	}
}

// WatchSynced notes that everything was listed.
func (m *Metrics) WatchSynced() {
	if m != nil {
		m.watchSynced.Set(1)
	}
}

// StatusWritten counts an attempt to write the status of an object.
func (m *Metrics) StatusWritten(kind, result string) {
	if m != nil {
		m.statusUpdates.WithLabelValues(kind, result).Inc()
	}
}

// Announced counts an attempt to create an Event.
func (m *Metrics) Announced(result string) {
	if m != nil {
		m.statusEvents.WithLabelValues(result).Inc()
	}
}

// StatusWaiting says how many objects are still to be written.
func (m *Metrics) StatusWaiting(objects int) {
	if m != nil {
		m.statusWaiting.Set(float64(objects))
	}
}

// ServiceWritten counts an attempt to write a Service of a Gateway.
func (m *Metrics) ServiceWritten(verb, result string) {
	if m != nil {
		m.serviceWrites.WithLabelValues(verb, result).Inc()
	}
}

// Leading says whether this replica leads.
func (m *Metrics) Leading(leads bool) {
	if m == nil {
		return
	}
	m.leader.Set(0)
	if leads {
		m.leader.Set(1)
	}
}

// Installed says how long it took to make a compiled table the one that is served.
func (m *Metrics) Installed(took time.Duration) {
	if m != nil {
		m.installDuration.Observe(took.Seconds())
	}
}

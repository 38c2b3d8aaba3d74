package route

import (
	"strconv"
	"time"
)

// Care is how a pool looks after its endpoints, and after itself. The zero Care is what nobody has asked for: see each field. Values are compared with ==.
// docs/health.md describes it for users.
type Care struct {
	Check   Check
	Outlier Outlier
	Limits  Limits
	Budget  Budget
	// Replay is how many bytes of a request's body are kept so that it can be sent again. Zero is the proxy's default.
	Replay int
	// Response is how long an endpoint may take from the end of a request to the head of its response, each time that the request is tried, unless the rule says how long a
	// try may take. Zero is the proxy's default.
	Response time.Duration
	// Hold is how long a request waits for an endpoint while the pool has none. Zero: it does not.
	Hold time.Duration
}

// CheckKind is how an endpoint is asked whether it is well.
type CheckKind string

// The kinds of check.
const (
	CheckHTTP CheckKind = "http" // a GET request must be answered with 2xx or 3xx
	CheckTCP  CheckKind = "tcp"  // it must accept a connection
	CheckGRPC CheckKind = "grpc" // grpc.health.v1.Health/Check must answer SERVING
)

// Check is an active check of each endpoint. The zero Check asks nothing. Where it is not zero, all fields but those that say so are set.
type Check struct {
	Kind     CheckKind
	Path     string // of an http check; the name of the service of a grpc check, which may be empty
	Host     string // of an http check; empty: the address
	Port     uint16 // zero: that of the endpoint
	Interval time.Duration
	Timeout  time.Duration
	// Healthy and Unhealthy are how many checks in a row must succeed, or fail, until the endpoint is used again, or not any more.
	Healthy, Unhealthy int
}

// Outlier is when an endpoint is left out for how it answers. Endpoints that cannot be reached are left out in any case.
type Outlier struct {
	// Consecutive is how many bad answers in a row it takes: 500, 502, 503, 504, none in time, and none at all. Zero: they do not count.
	Consecutive int
	// FailurePercent is how many answers of an endpoint must be bad, of at least 20 of the last 1 to 10 s, and at least twice as many as those of the others. Zero means 50, unless
	// the pool ties clients to endpoints: one of them could then get an endpoint left out. Negative: they do not count.
	FailurePercent int
	// Latency is how many times as long as that of the others its usual time to answer must be. Zero: it does not count.
	Latency int
	// MaxPercent is how many of the endpoints may be left out at the same time for how they answer, in percent. Zero means 50.
	MaxPercent int
	// Panic is the percentage of endpoints, of those that can be reached, below which the ones that are left out are used as well. Zero means 50, negative never.
	Panic int
	// Backoff is how long an endpoint is left out the first time, and MaxBackoff at most; it doubles each time in between. Zero is the proxy's default.
	Backoff, MaxBackoff time.Duration
}

// Limits bound what a pool may use, in each replica. A zero value is no limit.
type Limits struct {
	// Connections is how many connections to one endpoint there may be at a time, and so how many requests at a time where one connection has one.
	Connections int
	// Requests is how many requests may be under way at one endpoint at a time.
	Requests int
	// Pending is how many requests may wait while all endpoints have as many as they may. Zero: none does.
	Pending int
	// Queue is how long one of them waits. Zero means 1 s.
	Queue time.Duration
	// Uses is how many requests a connection carries before it is replaced, and Lifetime how old it becomes.
	Uses     int
	Lifetime time.Duration
}

// Budget is how many requests may be sent again: a share of those of the last Interval, and Count in each CountInterval however few those are. The zero
// Budget is the proxy's default.
type Budget struct {
	Percent       int
	Interval      time.Duration
	Count         int
	CountInterval time.Duration
	// Strict answers a request that should be sent again and may not be with 503. Otherwise the client gets what the endpoint said.
	Strict bool
}

// String returns the care on one line, such as "check=http:/healthz interval=5s max-pending=100 hold=30s"; "" for the zero Care.
func (c Care) String() string {
	return joinWords(c.Check.String(), c.Outlier.String(), c.Limits.String(), c.Budget.String(), numberSetting("replay", c.Replay), durationSetting("response", c.Response), durationSetting("hold", c.Hold))
}

// String returns the check on one line; "" for none.
func (c Check) String() string {
	if c.Kind == "" {
		return ""
	}
	what := "check=" + string(c.Kind)
	if c.Path != "" {
		what += ":" + word(c.Path, "")
	}
	return joinWords(what, setting("check-host", c.Host), numberSetting("check-port", int(c.Port)), durationSetting("interval", c.Interval),
		durationSetting("check-timeout", c.Timeout), numberSetting("healthy", c.Healthy), numberSetting("unhealthy", c.Unhealthy))
}

// String returns what is set, on one line.
func (o Outlier) String() string {
	return joinWords(numberSetting("eject-consecutive", o.Consecutive), numberSetting("eject-failures", o.FailurePercent), numberSetting("eject-latency", o.Latency),
		numberSetting("eject-max", o.MaxPercent), numberSetting("panic", o.Panic), durationSetting("eject-time", o.Backoff), durationSetting("eject-time-max", o.MaxBackoff))
}

// String returns what is limited, on one line.
func (l Limits) String() string {
	return joinWords(numberSetting("max-connections", l.Connections), numberSetting("max-requests", l.Requests), numberSetting("max-pending", l.Pending),
		durationSetting("queue", l.Queue), numberSetting("max-uses", l.Uses), durationSetting("lifetime", l.Lifetime))
}

// String returns the budget on one line, such as "retry-budget=20%/10s+10/1s"; "" for the default.
func (b Budget) String() string {
	if b == (Budget{}) {
		return ""
	}
	s := "retry-budget=" + strconv.Itoa(b.Percent) + "%"
	if b.Interval > 0 {
		s += "/" + b.Interval.String()
	}
	if b.Count > 0 {
		s += "+" + strconv.Itoa(b.Count) + "/" + b.CountInterval.String()
	}
	if b.Strict {
		s += " strict"
	}
	return s
}

// numberSetting returns name=n, or none for a negative n, and "" for zero.
func numberSetting(name string, n int) string {
	switch {
	case n == 0:
		return ""
	case n < 0:
		return name + "=none"
	default:
		return name + "=" + strconv.Itoa(n)
	}
}

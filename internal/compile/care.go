package compile

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// careSettings is what the annotations of a Service about the health of its endpoints come to.
type careSettings struct {
	care  route.Care
	retry route.Retry
	most  int             // that replay-limit may be
	given map[string]bool // names of the annotations that were read, valid or not
}

// careAnnotation is one of those annotations: its name without the prefix, and what its values do.
type careAnnotation struct {
	name string
	set  func(s *careSettings, text string) error
}

// careAnnotations are all of them. docs/health.md describes them. They have the same names in the configuration file.
var careAnnotations = []careAnnotation{
	{"health-check", (*careSettings).check},
	{"health-check-host", (*careSettings).checkHost},
	{"health-check-port", func(s *careSettings, text string) error {
		port, err := numberIn(text, 1, math.MaxUint16)
		s.care.Check.Port = uint16(port) // #nosec G115 -- it is one
		return err
	}},
	spanOf("health-check-interval", time.Second, time.Hour, func(s *careSettings) *time.Duration { return &s.care.Check.Interval }),
	spanOf("health-check-timeout", time.Millisecond, time.Hour, func(s *careSettings) *time.Duration { return &s.care.Check.Timeout }),
	countOf("health-check-healthy", 1, 100, func(s *careSettings) *int { return &s.care.Check.Healthy }),
	countOf("health-check-unhealthy", 1, 100, func(s *careSettings) *int { return &s.care.Check.Unhealthy }),
	countOf("eject-consecutive", 1, 1000, func(s *careSettings) *int { return &s.care.Outlier.Consecutive }),
	numberOrOff("eject-failure-percent", 1, 100, func(s *careSettings) *int { return &s.care.Outlier.FailurePercent }),
	countOf("eject-latency-factor", 2, 1000, func(s *careSettings) *int { return &s.care.Outlier.Latency }),
	countOf("eject-max-percent", 1, 100, func(s *careSettings) *int { return &s.care.Outlier.MaxPercent }),
	spanOf("eject-time", 100*time.Millisecond, time.Hour, func(s *careSettings) *time.Duration { return &s.care.Outlier.Backoff }),
	spanOf("eject-time-max", 100*time.Millisecond, time.Hour, func(s *careSettings) *time.Duration { return &s.care.Outlier.MaxBackoff }),
	numberOrOff("panic-percent", 1, 100, func(s *careSettings) *int { return &s.care.Outlier.Panic }),
	countOf("max-connections", 1, 1_000_000, func(s *careSettings) *int { return &s.care.Limits.Connections }),
	countOf("max-requests", 1, 1_000_000, func(s *careSettings) *int { return &s.care.Limits.Requests }),
	countOf("max-pending", 1, 1_000_000, func(s *careSettings) *int { return &s.care.Limits.Pending }),
	spanOf("queue-timeout", time.Millisecond, time.Hour, func(s *careSettings) *time.Duration { return &s.care.Limits.Queue }),
	countOf("max-requests-per-connection", 1, 1_000_000_000, func(s *careSettings) *int { return &s.care.Limits.Uses }),
	spanOf("connection-lifetime", time.Second, 24*time.Hour, func(s *careSettings) *time.Duration { return &s.care.Limits.Lifetime }),
	spanOf("response-timeout", time.Millisecond, time.Hour, func(s *careSettings) *time.Duration { return &s.care.Response }),
	spanOf("hold", time.Millisecond, 10*time.Minute, func(s *careSettings) *time.Duration { return &s.care.Hold }),
	countOf("retry-attempts", 0, 100, func(s *careSettings) *int { return &s.retry.Attempts }),
	{"retry-codes", (*careSettings).retryCodes},
	spanOf("retry-backoff", time.Millisecond, time.Minute, func(s *careSettings) *time.Duration { return &s.retry.Backoff }),
	{"replay-limit", (*careSettings).replayLimit},
	{"retry-budget-percent", func(s *careSettings, text string) error {
		percent, err := numberIn(text, 0, 100)
		s.care.Budget = defaultBudget
		s.care.Budget.Percent = percent
		return err
	}},
}

// defaultBudget is a retry budget as Gateway API has it where nothing else is said.
var defaultBudget = route.Budget{Percent: 20, Interval: 10 * time.Second, Count: 10, CountInterval: time.Second}

// careNames are the names of the annotations, with their prefix.
func careNames() []string {
	names := make([]string, len(careAnnotations))
	for i, a := range careAnnotations {
		names[i] = annotationPrefix + a.name
	}
	return names
}

func countOf(name string, least, most int, field func(*careSettings) *int) careAnnotation {
	return careAnnotation{name, func(s *careSettings, text string) (err error) {
		*field(s), err = numberIn(text, least, most)
		return err
	}}
}

func numberOrOff(name string, least, most int, field func(*careSettings) *int) careAnnotation {
	return careAnnotation{name, func(s *careSettings, text string) (err error) {
		if text == "off" {
			*field(s) = -1
			return nil
		}
		if *field(s), err = numberIn(text, least, most); err != nil {
			err = fmt.Errorf("%w, or off", err)
		}
		return err
	}}
}

func spanOf(name string, least, most time.Duration, field func(*careSettings) *time.Duration) careAnnotation {
	return careAnnotation{name, func(s *careSettings, text string) error {
		d, err := time.ParseDuration(text)
		if err != nil || d < least || d > most {
			return fmt.Errorf("%.64q is not a duration from %s to %s, such as 10s", text, least, most)
		}
		*field(s) = d
		return nil
	}}
}

func numberIn(text string, least, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%.64q is not a number from %d to %d", text, least, most)
	}
	return n, nil
}

// check reads how endpoints are checked.
func (s *careSettings) check(text string) error {
	c := &s.care.Check
	kind, path, has := strings.Cut(text, ":")
	switch {
	case text == "none":
		*c = route.Check{}
		return nil
	case kind == string(route.CheckHTTP) && strings.HasPrefix(path, "/") && !strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }),
		text == string(route.CheckTCP),
		kind == string(route.CheckGRPC) && (!has || path != ""):
		c.Kind, c.Path = route.CheckKind(kind), path
		return nil
	}
	return fmt.Errorf("%.64q is none of http:/PATH, tcp, grpc, grpc:SERVICE and none", text)
}

func (s *careSettings) checkHost(text string) error {
	host, err := cleanHostname(text, false)
	if err != nil {
		return err
	}
	s.care.Check.Host = host
	return nil
}

// retryCodes reads the codes after which a request is sent again, such as 502,503.
func (s *careSettings) retryCodes(text string) error {
	var codes []int
	for word := range strings.SplitSeq(text, ",") {
		code, err := numberIn(strings.TrimSpace(word), 400, 599)
		if err != nil {
			return fmt.Errorf("%w, of which there may be several, such as 502,503", err)
		}
		codes = append(codes, code)
	}
	slices.Sort(codes)
	s.retry.Codes = slices.Compact(codes)
	return nil
}

// DefaultReplayBytes is how much of a body may be kept where the operator says nothing of it, and maxReplayBytes what the operator can want.
const (
	DefaultReplayBytes = 1 << 20
	maxReplayBytes     = 64 << 20
)

// replayLimit reads how much of a body is kept, in bytes, Ki or Mi.
func (s *careSettings) replayLimit(text string) error {
	number, unit := text, 1
	if head, ok := strings.CutSuffix(text, "Ki"); ok {
		number, unit = head, 1<<10
	} else if head, ok := strings.CutSuffix(text, "Mi"); ok {
		number, unit = head, 1<<20
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > s.most/unit {
		return fmt.Errorf("%.64q is not a number of bytes from 1 to %d, which is what the configuration allows, such as 256Ki", text, s.most)
	}
	s.care.Replay = n * unit
	return nil
}

// has tells whether one of the annotations was read.
func (s *careSettings) has(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return s.given[n] })
}

// conflict is an annotation that does not go with the others.
type conflict struct{ name, why string }

// settle makes the settings agree, fills in what was not said, and returns what means nothing.
func (s *careSettings) settle() (conflicts []conflict) {
	c, l, o := &s.care.Check, &s.care.Limits, &s.care.Outlier
	unless := func(ok bool, why string, names ...string) {
		for _, n := range names {
			if !ok && s.given[n] {
				conflicts = append(conflicts, conflict{n, why})
			}
		}
	}
	unless(c.Kind != "", "without fairlead.io/health-check nothing is checked", "health-check-host", "health-check-port", "health-check-interval", "health-check-timeout", "health-check-healthy", "health-check-unhealthy")
	unless(c.Kind != route.CheckTCP, "a tcp check names no host", "health-check-host")
	bounded := l.Connections > 0 || l.Requests > 0
	unless(bounded || s.care.Hold > 0, "nothing waits without fairlead.io/max-connections, fairlead.io/max-requests or fairlead.io/hold", "max-pending")
	unless(bounded && l.Pending > 0, "nothing waits in a queue without fairlead.io/max-pending and a limit", "queue-timeout")
	unless(s.retry.Attempts > 0 || !s.has("retry-attempts"), "with retry-attempts: 0 no request is sent again", "retry-codes", "retry-backoff")
	if o.MaxBackoff > 0 && o.Backoff > o.MaxBackoff {
		conflicts = append(conflicts, conflict{"eject-time", fmt.Sprintf("it is longer than eject-time-max, %s, which is used", o.MaxBackoff)})
		o.Backoff = o.MaxBackoff
	}
	s.settleCheck(&conflicts)
	return conflicts
}

// settleCheck fills in what was not said of a check.
func (s *careSettings) settleCheck(conflicts *[]conflict) {
	c := &s.care.Check
	if c.Kind == "" {
		*c = route.Check{}
		return
	}
	if c.Kind == route.CheckTCP {
		c.Host = ""
	}
	setIfZero(&c.Interval, 10*time.Second)
	setIfZero(&c.Timeout, min(2*time.Second, c.Interval))
	setIfZero(&c.Healthy, 2)
	setIfZero(&c.Unhealthy, 3)
	if c.Timeout > c.Interval {
		*conflicts = append(*conflicts, conflict{"health-check-timeout", fmt.Sprintf("%s is longer than the interval, %s, which is used", c.Timeout, c.Interval)})
		c.Timeout = c.Interval
	}
}

func setIfZero[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// retryPolicy returns the policy for rules that have none; nil if nothing was said of it.
func (s *careSettings) retryPolicy(standard *route.Retry) *route.Retry {
	if !s.has("retry-attempts", "retry-codes", "retry-backoff") {
		return standard
	}
	out := s.retry
	if !s.has("retry-attempts") && out.Attempts == 0 {
		out.Attempts = defaultAttempts
	}
	return &out
}

// ParseCare makes the care of Services that say nothing, from values that their annotations could have, by the names of those without prefix.
func ParseCare(values map[string]string) (route.Care, *route.Retry, error) {
	s := &careSettings{most: maxReplayBytes, given: map[string]bool{}}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		i := slices.IndexFunc(careAnnotations, func(a careAnnotation) bool { return a.name == name })
		if i < 0 {
			return route.Care{}, nil, fmt.Errorf("health: there is no %.64q; there are %s", name, strings.ReplaceAll(strings.Join(careNames(), ", "), annotationPrefix, ""))
		}
		if err := careAnnotations[i].set(s, strings.TrimSpace(values[name])); err != nil {
			return route.Care{}, nil, fmt.Errorf("health.%s: %w", name, err)
		}
		s.given[name] = true
	}
	if conflicts := s.settle(); len(conflicts) > 0 {
		return route.Care{}, nil, fmt.Errorf("health.%s: %w", conflicts[0].name, errors.New(conflicts[0].why))
	}
	return s.care, s.retryPolicy(nil), nil
}

// readCare returns how the pool of a Service is looked after, as its annotations say, and as the operator says where they say nothing.
func (r *serviceReader) readCare() (route.Care, *route.Retry) {
	s := &careSettings{care: r.opt.Care, most: cmp.Or(r.opt.ReplayBytes, DefaultReplayBytes), given: map[string]bool{}}
	if r.opt.Retry != nil {
		s.retry = *r.opt.Retry
	}
	for _, a := range careAnnotations {
		text, ok := r.annotation(annotationPrefix + a.name)
		if !ok {
			continue
		}
		before := *s
		if err := a.set(s, text); err != nil {
			*s = before
			r.invalid(annotationPrefix+a.name, "the value %v; the default is used", err)
			continue
		}
		s.given[a.name] = true
	}
	for _, c := range s.settle() {
		r.invalid(annotationPrefix+c.name, "%s", c.why)
	}
	return s.care, s.retryPolicy(r.opt.Retry)
}

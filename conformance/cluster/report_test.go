package cluster

import (
	"os"
	"slices"
	"strings"
	"testing"
)

const firstReport = `kind: ConformanceReport
date: "2026-11-27T04:49:56Z"
implementation: {project: fairlead, version: f8bb753}
profiles:
- name: GATEWAY-TCP
  core: {result: success, statistics: {Failed: 0, Passed: 18}}
  extended: {supportedFeatures: [ListenerSet, TCPRoute]}
- name: GATEWAY-HTTP
  core: {result: success, statistics: {Failed: 0, Passed: 30}}
`

func TestReportDifferences(t *testing.T) {
	const second = `kind: ConformanceReport
date: "2026-11-28T00:00:00Z"
implementation: {project: fairlead, version: 0000000}
profiles:
- name: GATEWAY-HTTP
  core: {result: success, statistics: {Failed: 0, Passed: 29}}
- name: GATEWAY-TCP
  core: {result: partial, statistics: {Failed: 0, Passed: 18}}
  extended: {supportedFeatures: [TCPRoute]}
`
	got, err := ReportDifferences([]byte(firstReport), []byte(second))
	want := []string{
		"- profiles[GATEWAY-HTTP].core.statistics.Passed: 30",
		"- profiles[GATEWAY-TCP].core.result: success",
		"- profiles[GATEWAY-TCP].extended.supportedFeatures[]: ListenerSet",
		"+ profiles[GATEWAY-HTTP].core.statistics.Passed: 29",
		"+ profiles[GATEWAY-TCP].core.result: partial",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v\n%s\nwant\n%s", err, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The report that is kept can be compared, and another date, another version and another order are no difference.
func TestReportThatIsKept(t *testing.T) {
	kept, err := os.ReadFile("../reports/gateway-api.yaml")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(kept), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "date: ") || strings.HasPrefix(line, "  version: ") {
			key, _, _ := strings.Cut(line, ": ")
			lines[i] = key + `: "another"`
		}
	}
	if got, err := ReportDifferences(kept, []byte(strings.Join(lines, "\n"))); err != nil || len(got) > 0 {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := ReportDifferences(kept, []byte(firstReport)); err != nil || len(got) < 50 {
		t.Errorf("another report differs in %d places only, %v", len(got), err)
	}
	for _, bad := range []string{"", "kind: Ingress\n", "{"} {
		if _, err := ReportDifferences(kept, []byte(bad)); err == nil {
			t.Errorf("%q was taken for a report", bad)
		}
	}
}

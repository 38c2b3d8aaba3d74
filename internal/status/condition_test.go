package status

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	before = metav1.Time{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	now    = metav1.Time{Time: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)}
	epoch  = metav1.Time{Time: time.Unix(0, 0)}
)

// cond makes a condition from "Type=Status Reason generation".
func cond(text string, at metav1.Time) metav1.Condition {
	f := strings.Fields(text)
	typ, status, _ := strings.Cut(f[0], "=")
	c := metav1.Condition{Type: typ, Status: metav1.ConditionStatus(status), Reason: f[1], LastTransitionTime: at}
	for range f[2] {
		c.ObservedGeneration++ // one stroke for each: I, II, III
	}
	return c
}

func with(c metav1.Condition, message string) metav1.Condition {
	c.Message = message
	return c
}

func TestMerge(t *testing.T) {
	var never metav1.Time
	foreign := with(cond("example.com/Ready=False Slow I", before), "as it was")
	type list = []metav1.Condition
	tests := []struct {
		name             string
		have, want, then list
		unchanged        bool // have itself is returned
	}{
		{name: "nothing and nothing", unchanged: true},
		{
			// "lastTransitionTime is the last time the condition transitioned from one status to another."
			name: "the time moves when the status changes",
			have: list{cond("Accepted=False NoMatchingParent I", before)}, want: list{cond("Accepted=True Accepted II", never)},
			then: list{cond("Accepted=True Accepted II", now)},
		},
		{
			name: "the time stays when only the reason changes",
			have: list{cond("Accepted=False NoMatchingParent I", before)}, want: list{cond("Accepted=False NotAllowedByListeners I", never)},
			then: list{cond("Accepted=False NotAllowedByListeners I", before)},
		},
		{
			name: "the time stays when only the message changes",
			have: list{with(cond("Accepted=False Invalid I", before), "old")}, want: list{with(cond("Accepted=False Invalid I", never), "new")},
			then: list{with(cond("Accepted=False Invalid I", before), "new")},
		},
		{
			// "observedGeneration represents the .metadata.generation that the condition was set based upon. For instance, if .metadata.generation is currently
			// 12, but the .status.conditions[x].observedGeneration is 9, the condition is out of date with respect to the current state of the instance."
			name: "a later generation is noted, and is no transition",
			have: list{cond("Accepted=True Accepted I", before)}, want: list{cond("Accepted=True Accepted III", never)},
			then: list{cond("Accepted=True Accepted III", before)},
		},
		{
			name: "what is as it should be stays",
			have: list{cond("Accepted=True Accepted I", before)}, want: list{cond("Accepted=True Accepted I", never)},
			then: list{cond("Accepted=True Accepted I", before)}, unchanged: true,
		},
		{
			name: "the time that is wanted does not matter",
			have: list{cond("Accepted=True Accepted I", before)}, want: list{cond("Accepted=True Accepted I", now)},
			then: list{cond("Accepted=True Accepted I", before)}, unchanged: true,
		},
		{
			// "If that is not known, then using the time when the API field changed is acceptable."
			name: "a new condition has transitioned now",
			want: list{cond("Accepted=True Accepted I", never)},
			then: list{cond("Accepted=True Accepted I", now)},
		},
		{
			name: "unknown is a status like others",
			have: list{cond("Accepted=True Accepted I", before)}, want: list{cond("Accepted=Unknown Pending I", never)},
			then: list{cond("Accepted=Unknown Pending I", now)},
		},
		{
			name: "what the CRD puts in by default has not transitioned",
			have: list{cond("Accepted=Unknown Pending -", epoch)}, want: list{cond("Accepted=Unknown Waiting I", never)},
			then: list{cond("Accepted=Unknown Waiting I", now)},
		},
		{
			name: "what the CRD puts in by default is overwritten",
			have: list{cond("Accepted=Unknown Pending -", epoch), cond("Programmed=Unknown Pending -", epoch)},
			want: list{cond("Accepted=True Accepted I", never), cond("Programmed=False Invalid I", never)},
			then: list{cond("Accepted=True Accepted I", now), cond("Programmed=False Invalid I", now)},
		},
		{
			// "Implementations MUST NOT remove or reorder Conditions that they are not directly responsible for."
			name: "conditions of others stay where and as they are",
			have: list{foreign, cond("Accepted=False Invalid I", before), cond("example.com/Other=True Yes I", epoch)},
			want: list{cond("Programmed=True Programmed II", never), cond("Accepted=True Accepted II", never)},
			then: list{foreign, cond("Accepted=True Accepted II", now), cond("example.com/Other=True Yes I", epoch), cond("Programmed=True Programmed II", now)},
		},
		{
			// "Implementations MUST always merge changes into Conditions of the same Type, rather than creating more than one Condition of the same Type."
			name: "no type is there twice, the last of the wanted counts",
			want: list{cond("Accepted=False Invalid I", never), cond("Accepted=True Accepted I", never)},
			then: list{cond("Accepted=True Accepted I", now)},
		},
		{
			// "If the observedGeneration of a Condition is greater than the value the implementation knows about, then it MUST NOT perform the update on that
			// Condition, but must wait for a future reconciliation and status update."
			name: "who knows a later generation knows better",
			have: list{cond("Accepted=False Invalid III", before), cond("Programmed=False Invalid I", before)},
			want: list{cond("Accepted=True Accepted II", never), cond("Programmed=True Programmed II", never)},
			then: list{cond("Accepted=False Invalid III", before), cond("Programmed=True Programmed II", now)},
		},
		{
			name: "types differ by case",
			have: list{cond("accepted=True Accepted I", before)}, want: list{cond("Accepted=True Accepted I", never)},
			then: list{cond("accepted=True Accepted I", before), cond("Accepted=True Accepted I", now)},
		},
		{
			name: "conditions that are not wanted stay",
			have: list{cond("ResolvedRefs=True ResolvedRefs I", before)},
			then: list{cond("ResolvedRefs=True ResolvedRefs I", before)}, unchanged: true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			have, want := slices.Clone(tt.have), slices.Clone(tt.want)
			got := Merge(tt.have, tt.want, now)
			if diff := cmp.Diff(tt.then, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if diff := cmp.Diff(have, tt.have) + cmp.Diff(want, tt.want); diff != "" {
				t.Errorf("an argument was modified\n%s", diff)
			}
			if same := len(got) == len(tt.have) && (len(got) == 0 || &got[0] == &tt.have[0]); same != tt.unchanged {
				t.Errorf("have itself was returned: %t", same)
			}
			if again := Merge(got, tt.want, before); cmp.Diff(got, again) != "" {
				t.Errorf("merging twice changes something\n%s", cmp.Diff(got, again))
			}
		})
	}
}

func TestMergeKeepsMessagesWithinTheLimit(t *testing.T) {
	want := []metav1.Condition{with(cond("Accepted=False Invalid I", before), strings.Repeat("ä", maxMessage+1))}
	got := Merge(nil, want, now)
	if n := utf8.RuneCountInString(got[0].Message); n != maxMessage {
		t.Errorf("the message has %d characters, want %d", n, maxMessage)
	}
	if again := Merge(got, want, now); &again[0] != &got[0] {
		t.Error("a message that was cut is written again and again")
	}
	exact := strings.Repeat("ä", maxMessage)
	if got := Merge(nil, []metav1.Condition{with(cond("Accepted=False Invalid I", before), exact)}, now); got[0].Message != exact {
		t.Error("a message that fits was cut")
	}
}

func BenchmarkMergeNothing(b *testing.B) {
	have := []metav1.Condition{cond("Accepted=True Accepted I", before), cond("ResolvedRefs=True ResolvedRefs I", before)}
	b.ReportAllocs()
	for b.Loop() {
		Merge(have, have, now)
	}
}

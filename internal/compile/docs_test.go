package compile

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/gateway-api.md has a row for each feature that is claimed, and none for others; each row names directories that exist.
func TestFeaturesAreDocumented(t *testing.T) {
	text := readFile(t, "../../docs/gateway-api.md")
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (?:core|extended) \\| served[^|]* \\| (.*) \\|$")
	link := regexp.MustCompile(`\]\(\.\./internal/compile/(testdata/[^)]+)/in\.yaml\)`)
	var documented []string
	for _, m := range row.FindAllStringSubmatch(text, -1) {
		documented = append(documented, m[1])
		if !link.MatchString(m[2]) {
			t.Errorf("%s: no directory shows it", m[1])
		}
	}
	var claimed []string
	for _, f := range (&compiler{opt: Options{Cluster: &ClusterOptions{}}}).features() {
		claimed = append(claimed, string(f.Name))
	}
	slices.Sort(documented)
	for _, name := range claimed {
		if !slices.Contains(documented, name) {
			t.Errorf("%s is claimed and has no row in docs/gateway-api.md", name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(claimed, name) {
			t.Errorf("%s has a row in docs/gateway-api.md and is not claimed", name)
		}
	}
	if n := len(slices.Compact(documented)); n != len(claimed) {
		t.Errorf("%d rows for %d features", n, len(claimed))
	}
	links := link.FindAllStringSubmatch(text, -1)
	if len(links) < len(claimed) {
		t.Fatalf("only %d directories are named", len(links))
	}
	for _, m := range links {
		for _, file := range []string{"in.yaml", "status.txt"} {
			if _, err := os.Stat(filepath.Join(m[1], file)); err != nil {
				t.Errorf("%s: %v", strings.TrimPrefix(m[1], "testdata/"), err)
			}
		}
	}
}

// The tests that docs/gateway-api.md names exist.
func TestDocumentedTestsExist(t *testing.T) {
	links := regexp.MustCompile(`\[(Test\w+)\]\(\.\./([^)]+_test\.go)\)`).FindAllStringSubmatch(readFile(t, "../../docs/gateway-api.md"), -1)
	if len(links) < 25 {
		t.Fatalf("only %d tests are named", len(links))
	}
	for _, m := range links {
		if !strings.Contains(readFile(t, filepath.Join("../..", m[2])), "\nfunc "+m[1]+"(t *testing.T") {
			t.Errorf("%s has no %s", m[2], m[1])
		}
	}
}

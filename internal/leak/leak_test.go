package leak

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
)

func TestMain(m *testing.M) { os.Exit(Run(m)) }

func hang(end chan struct{}) { <-end }

func TestLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		go hang(end)
		synctest.Wait()
		for _, mine := range [][]string{nil, {"no such package", "leak.hang("}} {
			if left := Left(mine...); !strings.Contains(left, "leak.hang(") || strings.Count(left, "\n\n") > 0 {
				t.Errorf("of %q want the one that hangs, got:\n%s", mine, left)
			}
		}
		if left := Left("no such package"); left != "" {
			t.Errorf("want none, got:\n%s", left)
		}
		close(end)
		synctest.Wait()
		if left := Left(); left != "" {
			t.Errorf("want none when all have ended, got:\n%s", left)
		}
	})
}

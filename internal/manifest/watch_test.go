package manifest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/fairlead-io/fairlead/internal/leak"
)

// watching is a folder that is watched for the length of a test.
type watching struct {
	t       *testing.T
	folder  *Folder
	changed chan struct{}
}

func watchFolder(t *testing.T, dir string) *watching {
	t.Helper()
	return watchOpen(t, openFolder(t, dir))
}

func watchOpen(t *testing.T, f *Folder) *watching {
	t.Helper()
	w := &watching{t: t, folder: f, changed: make(chan struct{}, 1000)}
	w.folder.Read()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.folder.Watch(ctx, func() { w.changed <- struct{}{} }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v", err)
		}
	})
	return w
}

// until reads the folder at every change that is reported, and only then, until it holds want.
func (w *watching) until(want ...string) time.Duration {
	w.t.Helper()
	begun := time.Now()
	deadline := time.After(10 * time.Second)
	var got []string
	for {
		select {
		case <-w.changed:
			snap, _ := w.folder.Read()
			if got = values(snap); slices.Equal(got, want) {
				return time.Since(begun)
			}
		case <-deadline:
			w.t.Fatalf("after %v the changes that were reported had led to %q, want %q", time.Since(begun), got, want)
		}
	}
}

func (w *watching) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestWatchReportsChanges(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", configMap("a", "v"))
	w := watchFolder(t, dir)
	path := func(name string) string { return filepath.Join(dir, name) }

	write(t, dir, "a.yaml", configMap("a", "v2"))
	w.until("a=v2")
	write(t, dir, "b.yaml", configMap("b", "v"))
	w.until("a=v2", "b=v")

	// Editors write another file and give it the name of the first.
	write(t, dir, ".a.yaml.swp", "x")
	write(t, dir, "a.yaml.tmp", configMap("a", "v3"))
	w.must(os.Rename(path("a.yaml.tmp"), path("a.yaml")))
	w.until("a=v3", "b=v")

	// Others move the first out of the way.
	w.must(os.Rename(path("a.yaml"), path("a.yaml~")))
	write(t, dir, "a.yaml", configMap("a", "v4"))
	w.until("a=v4", "b=v")

	w.must(os.Remove(path("b.yaml")))
	w.until("a=v4")

	// Folders come with their files, change, move and go.
	write(t, dir, "s/t/c.yaml", configMap("c", "v"))
	w.until("a=v4", "c=v")
	write(t, dir, "s/t/c.yaml", configMap("c", "v2"))
	w.until("a=v4", "c=v2")
	w.must(os.Rename(path("s"), path("moved")))
	write(t, dir, "moved/t/c.yaml", configMap("c", "v3"))
	w.until("a=v4", "c=v3")
	w.must(os.RemoveAll(path("moved")))
	w.until("a=v4")
	write(t, dir, "moved/t/c.yaml", configMap("c", "v4"))
	w.until("a=v4", "c=v4")
}

// A folder that is made anew is another one, even where the file system gives it the number of the old one.
func TestWatchIsNotTakenInByANewFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "s/a.yaml", configMap("a", "v"))
	w := watchFolder(t, dir)
	for i := range 10 {
		w.must(os.RemoveAll(filepath.Join(dir, "s")))
		write(t, dir, "s/a.yaml", configMap("a", fmt.Sprintf("new%d", i)))
		w.until(fmt.Sprintf("a=new%d", i))
		write(t, dir, "s/a.yaml", configMap("a", fmt.Sprintf("changed%d", i)))
		if took := w.until(fmt.Sprintf("a=changed%d", i)); took > pollSafety/2 {
			t.Errorf("a change in the new folder was found by chance, after %v", took)
		}
	}
}

// A mounted ConfigMap or Secret changes by one rename of a hidden link.
func TestWatchReportsAMountedConfigMap(t *testing.T) {
	dir := t.TempDir()
	version := 0
	update := func(value string) {
		version++
		data := fmt.Sprintf("..%d", version)
		write(t, dir, data+"/a.yaml", configMap("a", value))
		write(t, dir, data+"/sub/b.yaml", configMap("b", value))
		for _, err := range []error{
			os.Symlink(data, filepath.Join(dir, "..data_tmp")),
			os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")),
			os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..%d", version-1))),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	update("v1")
	for link, target := range map[string]string{"a.yaml": "..data/a.yaml", "sub": "..data/sub"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	w := watchFolder(t, dir)
	for _, v := range []string{"v2", "v3", "v4"} {
		update(v)
		w.until("a="+v, "b="+v)
	}
	// What is behind the links may change without them.
	write(t, dir, fmt.Sprintf("..%d/a.yaml", version), configMap("a", "direct"))
	w.until("a=direct", "b=v4")
}

func TestWatchSurvivesTheFolder(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "x", "m")
	write(t, dir, "a.yaml", configMap("a", "v1"))
	w := watchFolder(t, dir)
	for i := range 3 {
		if err := os.RemoveAll(filepath.Join(base, "x")); err != nil {
			t.Fatal(err)
		}
		w.until(fmt.Sprintf("a=v%d", i+1)) // it is reported, and what was good is kept
		write(t, dir, "a.yaml", configMap("a", fmt.Sprintf("v%d", i+2)))
		w.until(fmt.Sprintf("a=v%d", i+2))
		write(t, dir, "a.yaml", configMap("a", fmt.Sprintf("w%d", i+2))) // and it is watched again
		w.until(fmt.Sprintf("a=w%d", i+2))
		write(t, dir, "a.yaml", configMap("a", fmt.Sprintf("v%d", i+2)))
		w.until(fmt.Sprintf("a=v%d", i+2))
	}
}

// The folder, or a part of the path to it, may be a link that is exchanged.
func TestWatchReportsAnExchangedLink(t *testing.T) {
	base := t.TempDir()
	for _, v := range []string{"v1", "v2", "v3"} {
		write(t, base, v+"/k8s/a.yaml", configMap("a", v))
	}
	for _, tt := range []struct{ link, to, dir string }{{"current", "%s", "current/k8s"}, {"direct", "%s/k8s", "direct"}} {
		t.Run(tt.link, func(t *testing.T) {
			exchange := func(v string) {
				for _, err := range []error{
					os.Symlink(fmt.Sprintf(tt.to, v), filepath.Join(base, "tmp")), os.Rename(filepath.Join(base, "tmp"), filepath.Join(base, tt.link)),
				} {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			exchange("v1")
			w := watchFolder(t, filepath.Join(base, tt.dir))
			for _, v := range []string{"v2", "v3", "v1"} {
				exchange(v)
				w.until("a=" + v)
			}
		})
	}
}

// A change between the first Read and Watch is not lost.
func TestWatchReportsWhatItMissed(t *testing.T) {
	dir := t.TempDir()
	f := openFolder(t, dir)
	f.Read()
	write(t, dir, "a.yaml", configMap("a", "v"))
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	if err := f.Watch(ctx, func() { calls++; cancel() }); !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("Watch = %v after %d calls", err, calls)
	}
}

func TestWatchIsQuick(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", configMap("a", "v"))
	w := watchFolder(t, dir)
	var took []time.Duration
	for i := range 11 {
		write(t, dir, "a.yaml", configMap("a", fmt.Sprintf("v%d", i)))
		took = append(took, w.until(fmt.Sprintf("a=v%d", i)))
	}
	slices.Sort(took)
	if median := took[5]; median > 150*time.Millisecond {
		t.Errorf("of eleven changes the median took %v to be reported", median)
	} else {
		t.Logf("of eleven changes the median took %v to be reported", median)
	}
}

// A burst of changes is few reports, and a burst without an end is reported nevertheless.
func TestWatchCoalescesBursts(t *testing.T) {
	dir := t.TempDir()
	w := watchFolder(t, dir)
	const files = 200
	var want []string
	for i := range files {
		write(t, dir, fmt.Sprintf("f%03d.yaml", i), configMap(fmt.Sprintf("c%03d", i), "v"))
		want = append(want, fmt.Sprintf("c%03d=v", i))
	}
	w.until(want...)
	if n := len(w.changed); n > files/4 {
		t.Errorf("%d reports are still waiting after %d changes", n, files)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			<-tick.C
			_ = os.WriteFile(filepath.Join(dir, "busy.yaml"), []byte(configMap("busy", fmt.Sprintf("v%d", i))), 0o600)
		}
	}()
	defer func() { cancel(); <-done }()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case <-w.changed:
			if snap, _ := w.folder.Read(); slices.ContainsFunc(values(snap), func(v string) bool { return strings.HasPrefix(v, "busy=") }) {
				return
			}
		case <-deadline:
			t.Fatal("a file that changes all the time is never reported")
		}
	}
}

// Files that are no manifests are nobody's business, and a folder where nothing happens is quiet.
func TestWatchIsQuietOtherwise(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", configMap("a", "v"))
	w := watchFolder(t, dir)
	write(t, dir, "readme.md", "x")
	write(t, dir, ".hidden.yaml", "x")
	write(t, dir, "a.yaml~", "x")
	write(t, dir, "b.yaml", configMap("b", "v")) // comes after the others
	w.until("a=v", "b=v")
	if n := len(w.changed); n > 0 {
		t.Errorf("%d more reports", n)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := openFolder(t, t.TempDir()).Watch(ctx, func() {}); !errors.Is(err, context.Canceled) {
		t.Errorf("Watch = %v", err)
	}
	if left := leak.Left(ours...); left != "" {
		t.Errorf("goroutines left behind:\n%s", left)
	}
}

// Where there are no notifications to be had, the folder is looked at.
func TestWatchWithoutNotifications(t *testing.T) {
	dir := t.TempDir()
	f := openFolder(t, dir)
	f.newWatcher = func() (*fsnotify.Watcher, error) { return nil, errors.New("too many") }
	w := watchOpen(t, f)
	for _, v := range []string{"v1", "v2"} {
		write(t, dir, "s/a.yaml", configMap("a", v))
		w.until("a=" + v)
	}
}

func TestWatchLooksAtTheFolderNowAndThen(t *testing.T) {
	for _, tt := range []struct {
		name    string
		blind   bool
		cost    time.Duration
		missing bool
		want    time.Duration
	}{
		{"watched", false, time.Millisecond, false, 2 * time.Second},
		{"watched, and large", false, 50 * time.Millisecond, false, 10 * time.Second},
		{"missing", false, time.Millisecond, true, 100 * time.Millisecond},
		{"not watched", true, time.Millisecond, false, 100 * time.Millisecond},
		{"not watched, and large", true, 50 * time.Millisecond, false, 500 * time.Millisecond},
	} {
		var w watch
		if tt.blind {
			w.blind = time.Now()
		}
		if got := w.interval(tt.cost, tt.missing); got != tt.want {
			t.Errorf("%s: interval = %v, want %v", tt.name, got, tt.want)
		}
	}
}

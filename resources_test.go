package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/store"
)

// manifest declares a backend of that name and a route to it.
func manifest(name string) string {
	return fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: %[1]s}
spec:
  rules:
  - backendRefs: [{group: sluice.dev, kind: Backend, name: %[1]s}]
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: %[1]s}
spec:
  endpoints: [{address: "127.0.0.1:50051"}]
`, name)
}

// watched is a folder of resources with what was applied of it, in order.
type watched struct {
	*resources
	t       *testing.T
	dir     string
	applied []string // the name of the first backend, each time
	refuse  error    // what apply returns
	clock   time.Time
	log     bytes.Buffer
}

func watch(t *testing.T, files map[string]string) *watched {
	t.Helper()
	w := &watched{t: t, dir: t.TempDir(), clock: time.Now()}
	for name, text := range files {
		w.write(name, text)
	}
	w.resources = &resources{
		paths: []string{w.dir},
		now:   func() time.Time { return w.clock },
		log:   slog.New(slog.NewTextHandler(&w.log, nil)),
		apply: func(set *store.Set) error {
			if w.refuse != nil {
				return w.refuse
			}
			name := ""
			if len(set.Backends) > 0 {
				name = set.Backends[0].Name
			}
			w.applied = append(w.applied, name)
			return nil
		},
	}
	if err := w.load(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *watched) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// want checks everything that was applied so far.
func (w *watched) want(names ...string) {
	w.t.Helper()
	if got, want := strings.Join(w.applied, " "), strings.Join(names, " "); got != want {
		w.t.Errorf("applied %q, want %q; log:\n%s", got, want, w.log.String())
	}
}

func TestResourcesAppliesAChangeOnceItHasSettled(t *testing.T) {
	w := watch(t, map[string]string{"a.yaml": manifest("one")})
	w.poll()
	w.want("one")

	w.write("a.yaml", manifest("two"))
	w.poll()
	w.want("one") // seen for the first time: it may be half written
	w.write("a.yaml", manifest("three"))
	w.poll()
	w.want("one") // changed again
	w.poll()
	w.want("one", "three")
	w.poll()
	w.poll()
	w.want("one", "three")
}

func TestResourcesSeesAChangeThatKeepsSizeAndTime(t *testing.T) {
	w := watch(t, map[string]string{"a.yaml": manifest("one")})
	w.poll()
	info, err := os.Stat(filepath.Join(w.dir, "a.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	w.write("a.yaml", manifest("two"))
	if err := os.Chtimes(filepath.Join(w.dir, "a.yaml"), info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	w.poll()
	w.poll()
	w.want("one", "two")
}

func TestResourcesSeesFilesComeAndGo(t *testing.T) {
	w := watch(t, map[string]string{"b.yaml": manifest("b")})
	w.write("a.json", "{}")
	w.write("notes.txt", "not a resource")
	w.write(".hidden.yaml", "not a resource")
	if got := len(w.files()); got != 2 {
		t.Errorf("looks at %v, want a.json and b.yaml", w.files())
	}
	w.write("a.json", "")
	w.write("a.yaml", manifest("a"))
	w.poll()
	w.poll()
	w.want("b", "a")
	if err := os.Remove(filepath.Join(w.dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	w.poll()
	w.poll()
	w.want("b", "a", "b")
}

func TestResourcesFollowsALinkThatIsSwapped(t *testing.T) {
	w := watch(t, nil)
	for _, name := range []string{"one", "two"} {
		if err := os.Mkdir(filepath.Join(w.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		w.write(filepath.Join(name, "a.yaml"), manifest(name))
	}
	link := filepath.Join(w.dir, "a.yaml")
	swap := func(name string) {
		if err := os.Symlink(filepath.Join(name, "a.yaml"), link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
		w.poll()
		w.poll()
	}
	swap("one")
	swap("two")
	w.want("", "one", "two")
}

func TestResourcesKeepsTheLastGoodOnes(t *testing.T) {
	w := watch(t, map[string]string{"a.yaml": manifest("one")})
	w.write("a.yaml", strings.Replace(manifest("two"), "rules:", "rulez:", 1))
	for range 4 {
		w.poll()
	}
	w.want("one")
	log := w.log.String()
	if n := strings.Count(log, `msg="resource fault"`); n != 1 || !strings.Contains(log, "line=5") || !strings.Contains(log, "a.yaml") {
		t.Errorf("log has %d faults, want 1, in line 5 of a.yaml:\n%s", n, log)
	}
	if n := strings.Count(log, `msg="resources refused, last good ones kept"`); n != 1 {
		t.Errorf("log says %d times that the change was refused, want once:\n%s", n, log)
	}

	w.write("a.yaml", manifest("two"))
	w.poll()
	w.poll()
	w.want("one", "two")
}

func TestResourcesKeepsTheLastGoodOnesWhenTheFolderGoes(t *testing.T) {
	w := watch(t, map[string]string{"a.yaml": manifest("one")})
	if err := os.Rename(w.dir, w.dir+".away"); err != nil {
		t.Fatal(err)
	}
	w.poll()
	w.poll()
	w.want("one")
	if !strings.Contains(w.log.String(), "resources refused") {
		t.Errorf("log does not say so:\n%s", w.log.String())
	}
}

func TestResourcesReportsWhatTheGatewayRefuses(t *testing.T) {
	w := watch(t, map[string]string{"a.yaml": manifest("one")})
	w.refuse = errors.New("read certificate")
	w.reload()
	w.want("one")
	if !strings.Contains(w.log.String(), "apply resources: read certificate") {
		t.Errorf("log does not say so:\n%s", w.log.String())
	}
}

func TestResourcesReloadsWithoutAChange(t *testing.T) {
	w := watch(t, map[string]string{"a.yaml": manifest("one")})
	w.reload()
	w.want("one", "one")
}

func TestResourcesLooksAtTheFilesOfBackends(t *testing.T) {
	text := strings.Replace(manifest("one"), "spec:\n  endpoints", "spec:\n  protocol: tls\n  tls: {caFile: ca.pem}\n  endpoints", 1)
	w := watch(t, map[string]string{"a.yaml": text, "ca.pem": "first"})
	w.poll()
	w.poll()
	w.want("one")
	w.write("ca.pem", "second")
	w.poll()
	w.poll()
	w.want("one", "one")

	w.write("a.yaml", manifest("two"))
	w.poll()
	w.poll()
	w.write("ca.pem", "third") // nobody names it any more
	w.poll()
	w.poll()
	w.want("one", "one", "two")
}

func TestResourcesMayBeNone(t *testing.T) {
	var sets []*store.Set
	r := &resources{
		log:   slog.New(slog.DiscardHandler),
		apply: func(set *store.Set) error { sets = append(sets, set); return nil },
	}
	if err := r.load(); err != nil {
		t.Fatal(err)
	}
	r.poll()
	if len(sets) != 1 {
		t.Errorf("applied %d times, want once", len(sets))
	}
}

func TestResourcesTriesAgainWhenThereWasNoRoom(t *testing.T) {
	w := watch(t, map[string]string{"a.yaml": manifest("one")})
	w.write("a.yaml", manifest("two"))
	w.refuse = fmt.Errorf("write: %w", store.ErrFull)
	for range 5 {
		w.poll()
	}
	w.want("one")
	if said := strings.Count(w.log.String(), "resources refused"); said != 1 {
		t.Errorf("said %d times that there is no room, want once:\n%s", said, w.log.String())
	}
	if got := strings.Join(w.Problems(), "\n"); !strings.Contains(got, "no space left") {
		t.Errorf("problems %q, want the disk", got)
	}
	w.refuse = nil
	w.poll()
	w.want("one") // not at each look: it costs as much as a change
	w.clock = w.clock.Add(tryAgain + time.Second)
	w.poll()
	w.want("one", "two")
	if got := w.Problems(); len(got) > 0 {
		t.Errorf("problems %q, want none", got)
	}
}

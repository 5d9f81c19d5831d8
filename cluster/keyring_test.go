package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/store"
)

// testKey is a key of which all bytes are the same.
func testKey(b byte) key { return key(bytes.Repeat([]byte{b}, keyBytes)) }

func keyFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keys")
	writeFile(t, name, text)
	return name
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func openTestKeyring(t *testing.T, name string) (*keyring, *lines) {
	t.Helper()
	var log lines
	r, err := openKeyring(name, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return r, &log
}

func TestKeysAreRead(t *testing.T) {
	a, b := testKey('a'), testKey('b')
	lines, err := parseKeys([]byte("# of all gateways\n\n  " + a.text() + "  # since spring\r\n" + b.text()))
	if err != nil || !slices.Equal(lines.keys(), []key{a, b}) {
		t.Errorf("got %v, %v", lines.keys(), err)
	}
	for text, want := range map[string]string{
		"":                                 "no key",
		"# nothing\n":                      "no key",
		"secret":                           "line 1: want 32 bytes in base64",
		"\nYWFhYWFhYWFhYWFhYWFhYQ==\n":     "line 2: 16 bytes in base64, want 32",
		"YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh": "line 1: 24 bytes in base64, want 32",
		a.text() + "\n" + a.text():         "line 2: key " + a.fingerprint() + " is there twice",
		strings.Join(manyKeys(9), "\n"):    "9 keys, want at most 8",
		a.text() + " " + b.text() + "\n":   "line 1: want 32 bytes",
	} {
		if _, err := parseKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %q", text, err, want)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), a.text()) {
			t.Errorf("%.60q: the error repeats the key: %v", text, err)
		}
	}
}

func manyKeys(n int) (texts []string) {
	for i := range n {
		texts = append(texts, testKey(byte(i)).text())
	}
	return texts
}

func TestKeysAreNotPrinted(t *testing.T) {
	k := testKey('a')
	for _, printed := range []string{fmt.Sprint(k), fmt.Sprintf("%v %+v %s", k, []key{k}, &k)} {
		if strings.Contains(printed, "aaaa") || strings.Contains(printed, "97 97") || strings.Contains(printed, k.text()) {
			t.Errorf("printed as %s", printed)
		}
	}
}

func TestKeyringIsChanged(t *testing.T) {
	a, b := testKey('a'), testKey('b')
	name := keyFile(t, "# first\n"+a.text()+" # old\n# last\n")
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	r, log := openTestKeyring(t, name)
	in := func(what string, reply keyReply, failure string, want ...key) {
		t.Helper()
		if failure == "" && reply.Err != nil || failure != "" && (reply.Err == nil || !strings.Contains(reply.Err.Error(), failure)) {
			t.Errorf("%s: error %v, want %q", what, reply.Err, failure)
		}
		if !slices.Equal(reply.Keys, fingerprints(want)) || reply.Warning != "" {
			t.Errorf("%s: keys %v, warning %q, want %v", what, reply.Keys, reply.Warning, fingerprints(want))
		}
		raw := r.ring.GetKeys()
		if len(raw) != len(want) || !bytes.Equal(raw[0], want[0][:]) {
			t.Errorf("%s: %d keys encrypt, want %d", what, len(raw), len(want))
		}
	}
	in("list", r.change(keyList, ""), "", a)
	in("use what is not there", r.change(keyUse, b.fingerprint()), "this node has no such key", a)
	in("add nonsense", r.change(keyAdd, "x"), "want 32 bytes", a)
	in("add", r.change(keyAdd, b.text()), "", a, b)
	in("add again", r.change(keyAdd, b.text()), "", a, b)
	in("remove the one that sends", r.change(keyRemove, a.fingerprint()), "is used to send", a, b)
	in("use", r.change(keyUse, b.fingerprint()), "", b, a)
	in("remove", r.change(keyRemove, a.text()), "", b)
	in("remove again", r.change(keyRemove, a.fingerprint()), "", b)
	in("an unknown verb", r.change(99, ""), "not known here", b)
	got, err := os.ReadFile(name)
	if want := "# first\n" + b.text() + "\n# last\n"; err != nil || string(got) != want {
		t.Errorf("the file says %q, %v; want %q", got, err, want)
	}
	if info, _ := os.Stat(name); info.Mode().Perm() != 0o640 {
		t.Errorf("the file has mode %o", info.Mode().Perm())
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(name), ".*")); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
	if text := log.String(); strings.Contains(text, a.text()) || strings.Contains(text, b.text()) {
		t.Errorf("keys in the log:\n%s", text)
	}
}

func TestKeyringHoldsInMemoryWhatCannotBeWritten(t *testing.T) {
	a, b, c := testKey('a'), testKey('b'), testKey('c')
	dir := t.TempDir()
	name := filepath.Join(dir, "keys")
	writeFile(t, name, a.text())
	r, _ := openTestKeyring(t, name)
	if err := os.Rename(dir, dir+".away"); err != nil { // root may write wherever there is a directory
		t.Fatal(err)
	}
	reply := r.change(keyAdd, b.text())
	if reply.Err != nil || len(reply.Keys) != 2 || !strings.Contains(reply.Warning, "in memory alone") {
		t.Errorf("got %+v", reply)
	}
	if got := r.problems(); len(got) != 1 || !strings.Contains(got[0], "in memory alone") {
		t.Errorf("problems %q", got)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	r.look()
	if got := r.change(keyList, ""); len(got.Keys) != 2 {
		t.Errorf("a file that says what it said before takes a key away: %v", got.Keys)
	}
	if reply := r.change(keyAdd, c.text()); reply.Warning != "" || len(r.problems()) != 0 {
		t.Errorf("written at last: %+v, problems %q", reply, r.problems())
	}
	if lines, _, err := readKeyFile(name); err != nil || !slices.Equal(lines.keys(), []key{a, b, c}) {
		t.Errorf("the file says %v, %v", lines.keys(), err)
	}
}

func TestKeyringReadsItsFileAnew(t *testing.T) {
	a, b := testKey('a'), testKey('b')
	name := keyFile(t, a.text())
	r, log := openTestKeyring(t, name)
	says := func(what string, want ...key) {
		t.Helper()
		r.look()
		if got := r.change(keyList, "").Keys; !slices.Equal(got, fingerprints(want)) {
			t.Errorf("%s: keys %v, want %v", what, got, fingerprints(want))
		}
	}
	writeFile(t, name, b.text()+"\n"+a.text()+"\n")
	says("another first", b, a)
	writeFile(t, name, "broken")
	says("broken", b, a)
	says("still broken", b, a)
	if got := r.problems(); len(got) != 1 || !strings.Contains(got[0], "line 1") {
		t.Errorf("problems %q", got)
	}
	if text := log.String(); strings.Count(text, "not read anew") != 1 {
		t.Errorf("log:\n%s", text)
	}
	writeFile(t, name, b.text())
	says("one gone", b)
	if got := r.problems(); len(got) != 0 {
		t.Errorf("problems %q", got)
	}
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	writeFile(t, name, b.text()+"\n")
	says("open to all", b)
	if got := r.problems(); len(got) != 1 || !strings.Contains(got[0], "every user") {
		t.Errorf("problems %q", got)
	}
}

func TestKeyringIsRefused(t *testing.T) {
	for name, want := range map[string]string{
		filepath.Join(t.TempDir(), "none"):            "no such file",
		keyFile(t, "x"):                               "line 1",
		keyFile(t, strings.Repeat("#", maxKeyFile+1)): "more than 64 KiB",
	} {
		if _, err := openKeyring(name, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	var none *keyring
	if reply := none.change(keyList, ""); !errors.Is(reply.Err, errNoKeys) || none.memberlist() != nil || none.problems() != nil {
		t.Errorf("no keyring answers %+v", reply)
	}
}

// run starts the whole of a node.
func run(t *testing.T, b *body, file string) *Cluster {
	t.Helper()
	c, err := New(Config{KeyFile: file, Join: b.join}, Parts{Store: b.store, Transport: b.net.transport(b.id), InForce: func(context.Context, uint64, []store.ID) error { return nil }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestKeysAreChangedInTheWholeCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(memberlistEnds)
		n := newNetwork(t, 20)
		n.slow(time.Millisecond)
		a, b := testKey('a'), testKey('b')
		var nodes []*Cluster
		var files []string
		var bodies []*body
		for i := range 3 {
			here := newBody(t, n)
			if i > 0 {
				here.join = []string{bodies[0].address()}
			}
			files, bodies = append(files, keyFile(t, a.text())), append(bodies, here)
			nodes = append(nodes, run(t, here, files[i]))
		}
		all := func() bool {
			return !slices.ContainsFunc(nodes, func(c *Cluster) bool { return c.Alive() != 3 })
		}
		until(t, 10*time.Second, "all see all", all)
		change := func(what string, answers []KeyAnswer, err error, want ...key) {
			t.Helper()
			if err != nil || len(answers) != 3 {
				t.Fatalf("%s: %d answers, %v", what, len(answers), err)
			}
			for _, answer := range answers {
				if answer.Err != nil || answer.Warning != "" || !slices.Equal(answer.Keys, fingerprints(want)) {
					t.Errorf("%s: node %s has %v, %v, %q, want %v", what, answer.Member.ID, answer.Keys, answer.Err, answer.Warning, fingerprints(want))
				}
			}
			time.Sleep(30 * time.Second)
			if !all() {
				t.Errorf("%s: somebody is dead: %+v", what, nodes[0].Members())
			}
		}
		within, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := nodes[1].UseKey(within, b.fingerprint()); err == nil || !strings.Contains(err.Error(), "does not have it: add it first") {
			t.Errorf("use before add: %v", err)
		}
		answers, err := nodes[1].AddKey(within, b.text())
		change("add", answers, err, a, b)
		if _, err := nodes[1].RemoveKey(within, a.fingerprint()); err == nil || !strings.Contains(err.Error(), "sends with it: use another first") {
			t.Errorf("remove what sends: %v", err)
		}
		answers, err = nodes[2].UseKey(within, b.fingerprint())
		change("use", answers, err, b, a)
		answers, err = nodes[0].RemoveKey(within, a.fingerprint())
		change("remove", answers, err, b)
		change("list", nodes[0].Keys(within), nil, b)
		for _, file := range files {
			if lines, _, err := readKeyFile(file); err != nil || !slices.Equal(lines.keys(), []key{b}) {
				t.Errorf("a file says %v, %v", lines.keys(), err)
			}
		}
		for _, c := range nodes {
			if s := c.Stats(); len(s.Refused) > 0 && (s.Refused["key"] > 0 || s.Refused["plain"] > 0) {
				t.Errorf("refused were %v", s.Refused)
			}
		}
		// Who has only the key of before is not let in.
		old := newBody(t, n, bodies[0].address())
		late := run(t, old, keyFile(t, a.text()))
		time.Sleep(time.Minute)
		if late.Alive() != 1 || !all() {
			t.Errorf("with the old key: %+v", late.Members())
		}
		if got := fmt.Sprint(late.Problems()); !strings.Contains(got, "it has another key") {
			t.Errorf("problems of who has the old key: %s", got)
		}
		if s := nodes[0].Stats(); s.Refused["key"] == 0 {
			t.Errorf("refused were %v", s.Refused)
		}
	})
}

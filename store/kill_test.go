package store

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// writerEnv is the folder that a child of a test writes in.
	writerEnv = "SLUICE_STORE_WRITER"
	// killsEnv is how often one is killed, here a tenth of it: the rows below have
	// a test of their own.
	killsEnv     = "SLUICE_KILLS"
	defaultKills = 300
)

// Whenever a process that writes is killed, all that it had called written is there,
// in the objects and in their history, and what it was writing is there whole or not
// at all.
func TestStoreLosesNothingToKill(t *testing.T) {
	kills := defaultKills
	if text, set := os.LookupEnv(killsEnv); set {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%s %q: want a number", killsEnv, text)
		}
	}
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	dir, last, written := t.TempDir(), uint64(0), 0
	for n := range kills / 10 {
		acknowledged := killWriter(t, dir, n%2 == 0, time.Duration(rng.IntN(100_000))*time.Microsecond)
		s, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatalf("kill %d, seed %d: %v", n, seed, err)
		}
		seq := s.Snapshot().Seq()
		want := max(last, acknowledged.seq)
		if seq < want || seq > want+2 || s.Recovery() != "" {
			t.Fatalf("kill %d, seed %d: sequence %d, %d was acknowledged; %s", n, seed, seq, want, s.Recovery())
		}
		if acknowledged.seq > 0 {
			written++
			c, err := s.Watch(acknowledged.seq - 1).Next(t.Context())
			if err != nil || c.After.Revision.String() != acknowledged.revision {
				t.Errorf("kill %d, seed %d: change %d is %v, %v; want revision %s", n, seed, c.Seq, c.After, err, acknowledged.revision)
			}
		}
		last = seq
		closeStore(t, s)
	}
	t.Logf("%d kills, %d after a write, %d changes", kills/10, written, last)
}

// acknowledgement is the last change that a writer called written.
type acknowledgement struct {
	seq      uint64
	revision string
}

// killWriter starts a child and kills it: some time after it began to open the store,
// or after its first write.
func killWriter(t *testing.T, dir string, writes bool, after time.Duration) (last acknowledgement) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerEnv+"="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatalf("the writer did not begin: %v; %s", err, stderr.String())
	}
	var kill *time.Timer
	for {
		if kill == nil && (!writes || last.seq > 0) {
			kill = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
			defer kill.Stop()
		}
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		if _, err := fmt.Sscanf(line, "%d %s\n", &last.seq, &last.revision); err != nil {
			t.Fatalf("the writer says %q: %v", line, err)
		}
	}
	if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
		t.Fatalf("the writer ended by itself: %v; %s", err, stderr.String())
	}
	return last
}

// writeUntilKilled is the child: it opens the store, says so, writes, and says after
// each write the sequence and the revision of its last change.
func writeUntilKilled(dir string) {
	fail := func(err error) {
		_, _ = io.WriteString(os.Stderr, err.Error())
		os.Exit(1)
	}
	_, _ = io.WriteString(os.Stdout, "open\n")
	s, err := Open(Options{Dir: dir})
	if err != nil {
		fail(err)
	}
	for n := s.Snapshot().Seq(); ; n++ {
		var ops []Op
		for _, name := range []string{fmt.Sprintf("b%d", n%7), fmt.Sprintf("c%d", n%3)} {
			id := ID{BackendKind, "default", name}
			if _, there := s.Snapshot().Get(id); there && n%5 == 0 {
				ops = append(ops, Op{ID: id, Delete: true})
				continue
			}
			b := &Backend{Meta: Meta{Namespace: "default", Name: name, Labels: map[string]string{"n": fmt.Sprint(n)}}}
			b.Spec.SetDefaults()
			b.Spec.Endpoints = []Endpoint{{Address: strings.Repeat("a", 1+int(n%200)) + ":1", Weight: 1}}
			ops = append(ops, Op{Apply: b})
		}
		result, err := s.Write(context.Background(), Txn{Author: Author{Actor: "writer"}, Ops: ops})
		if err != nil {
			fail(err)
		}
		c := result.Changes[len(result.Changes)-1]
		_, _ = fmt.Fprintf(os.Stdout, "%d %s\n", c.Seq, c.After.Revision)
	}
}

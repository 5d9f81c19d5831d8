package disk

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Kills of real processes: as many as SLUICE_KILLS says.
const defaultKills = 300

func init() { children["writer"] = writeUntilKilled }

// dirEnv names the directory that a child works in.
const dirEnv = "SLUICE_DISK_DIR"

// TestDBLosesNothingToKill kills a process that writes, and copies all the time,
// at any moment: in the first opening, in an Update, between the journal and
// bbolt, in a copy, in its renaming. What it said to be written is there, what it
// was writing is there as a whole or not at all, and nothing had to be recovered.
func TestDBLosesNothingToKill(t *testing.T) {
	kills := fromEnv(t, "SLUICE_KILLS", defaultKills)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	dir, acknowledged, begun, lost := "", 0, 0, 0
	for n := range kills {
		if n%20 == 0 {
			dir, acknowledged = t.TempDir(), 0
		} else if n%10 == 0 {
			dir, acknowledged = inMemory(t), 0 // there, other moments are the long ones
		}
		acked := killWriter(t, dir, time.Duration(random.IntN(60_000))*time.Microsecond)
		acknowledged = max(acknowledged, acked)
		if acked > 0 {
			begun++
		}
		last, err := checkWritten(t, dir)
		if err != nil || last < acknowledged || last > acknowledged+1 {
			lost++
			t.Errorf("kill %d, seed %d: %d acknowledged, %d there: %v", n, seed, acknowledged, last, err)
		}
		acknowledged = last
		if t.Failed() {
			break
		}
	}
	if begun < kills/4 {
		t.Errorf("only %d of %d processes were killed after their first write", begun, kills)
	}
	t.Logf("%d kills, %d of them while writing, %d lost", kills, begun, lost)
}

// fromEnv is a count that `make faults` raises.
func fromEnv(t *testing.T, name string, byDefault int) int {
	text, set := os.LookupEnv(name)
	if !set {
		return byDefault
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s %q: want a number", name, text)
	}
	return n
}

// killWriter lets a writer write for a while, kills it, and returns the last step
// that it called written. Half of them are given time to begin.
func killWriter(t *testing.T, dir string, after time.Duration) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=writer", dirEnv+"="+dir)
	cmd.Stderr = os.Stderr
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(said)
	if after%2 == 0 {
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatalf("writer did not open the store: %v", err)
		}
	}
	killer := time.AfterFunc(after, func() { cmd.Process.Kill() })
	defer killer.Stop()
	rest, _ := io.ReadAll(lines)
	cmd.Wait() // it was killed, as it should be
	if status := cmd.ProcessState.String(); status != "signal: killed" {
		t.Fatalf("writer ended by itself: %s", status)
	}
	acked := 0
	for line := range strings.Lines(string(rest)) {
		if n, err := strconv.Atoi(strings.TrimSuffix(line, "\n")); err == nil && strings.HasSuffix(line, "\n") {
			acked = n
		}
	}
	return acked
}

// checkWritten returns the last step that is there, when all of it and of those
// before is.
func checkWritten(t *testing.T, dir string) (int, error) {
	t.Helper()
	db, err := Open(Options{Dir: dir})
	if err != nil {
		return 0, err
	}
	defer mustClose(t, db)
	if db.Recovery() != "" {
		return 0, fmt.Errorf("recovery: %s", db.Recovery())
	}
	got, err := readAll(db)
	if err != nil {
		return 0, err
	}
	last, _ := strconv.Atoi(got["own/last"])
	if want := rowsAfter(last); !maps.Equal(got, want) {
		return last, fmt.Errorf("%d rows, want %d, or others", len(got), len(want))
	}
	return last, nil
}

// writeUntilKilled is the child: it writes one step after another, says so, and
// makes copies as fast as it can.
func writeUntilKilled() int {
	db, err := Open(Options{Dir: os.Getenv(dirEnv), CopyEvery: time.Millisecond})
	if err != nil {
		fmt.Fprintln(os.Stderr, "writer:", err)
		return 1
	}
	go db.Run(context.Background())
	last := 0
	err = db.View(func(tx *Tx) error {
		value, _, err := tx.Get("own", []byte("last"))
		last, _ = strconv.Atoi(string(value))
		return err
	})
	fmt.Println("opened")
	for err == nil {
		last++
		if err = tryPut(db, step(last)...); err == nil {
			fmt.Println(last)
		}
	}
	fmt.Fprintln(os.Stderr, "writer:", err)
	return 1
}

// step is what the writer changes in its n-th Update.
func step(n int) []string {
	changes := []string{
		fmt.Sprintf("own/last=%d", n),
		fmt.Sprintf("a/%d=%d %s", n%20, n, strings.Repeat("x", n*37%3000)),
		fmt.Sprintf("a/%d", n/7%20),
	}
	if n%25 == 0 {
		for i := range 100 {
			changes = append(changes, fmt.Sprintf("many/%d=%0300d", n*i%500, n))
		}
	}
	return changes
}

// rowsAfter is what all steps up to the n-th lead to.
func rowsAfter(n int) rows {
	want := rows{}
	for i := 1; i <= n; i++ {
		for _, change := range step(i) {
			if row, value, isPut := strings.Cut(change, "="); isPut {
				want[row] = value
			} else {
				delete(want, row)
			}
		}
	}
	return want
}

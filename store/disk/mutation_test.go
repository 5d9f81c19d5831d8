package disk

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Seeded mutations of files: as many as SLUICE_MUTATIONS says.
const defaultMutations = 2000

// mutationBatch is how many of them one child process opens.
const mutationBatch = 500

func init() { children["mutations"] = openMutations }

const (
	fromEnvName = "SLUICE_DISK_FROM"
	toEnvName   = "SLUICE_DISK_TO"
)

// TestDBServesNoWrongRows damages the files of a store in any way, and opens it in
// a process that would end if what it opened could end it.
//
// Damage of one file costs nothing: all rows are there. Damage of two may cost the
// rows that were written last, and then Recovery says so, or the store, and then
// nothing has been changed. No row is ever one that was not written.
func TestDBServesNoWrongRows(t *testing.T) {
	count := fromEnv(t, "SLUICE_MUTATIONS", defaultMutations)
	base := inMemory(t)
	for i, all := range mutationBases(t) {
		writeFiles(t, filepath.Join(base, strconv.Itoa(i)), all)
	}
	total := map[string]int{}
	for from := 0; from < count; from += mutationBatch {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"=mutations", dirEnv+"="+base,
			fmt.Sprintf("%s=%d", fromEnvName, from), fmt.Sprintf("%s=%d", toEnvName, min(count, from+mutationBatch)))
		output, err := cmd.CombinedOutput()
		for line := range strings.Lines(string(output)) {
			what, n, found := strings.Cut(strings.TrimSpace(line), "=")
			if number, err := strconv.Atoi(n); found && err == nil {
				total[what] += number
			}
		}
		if err != nil {
			t.Fatalf("mutations from %d on: %v\n%s", from, err, output[:min(len(output), 10_000)])
		}
	}
	t.Logf("%d mutations: %v", count, total)
	if total["recovered"] < count/4 || total["opened"]+total["refused"] != count {
		t.Errorf("%d mutations: %v: these are not all, or most did not harm", count, total)
	}
}

// steps is how many were written to the stores that are mutated.
const mutationSteps = 14

// mutationBases are the stores that are mutated, in the states that matter: with
// changes behind the copy, with none, and before the first copy. In the last one
// nothing but the journal can take over.
func mutationBases(t *testing.T) []files {
	t.Helper()
	var bases []files
	for _, copyAt := range []int{8, mutationSteps, 0} {
		dir := inMemory(t)
		db := mustOpen(t, Options{Dir: dir})
		older := files{}
		for n := 1; n <= mutationSteps; n++ {
			put(t, db, step(n)...)
			if n == copyAt {
				if err := db.keepCopy(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			if n == mutationSteps-2 {
				older["older"] = readFiles(t, dir)[dbName]
			}
		}
		mustClose(t, db)
		// Without the room behind the last page, of which damage would be none.
		all := readFiles(t, dir)
		im, err := newImage(bytes.NewReader(all[dbName]), int64(len(all[dbName])))
		if err != nil {
			t.Fatal(err)
		}
		all[dbName] = all[dbName][:int64(im.pages)*im.size]
		bases = append(bases, all.with(older))
	}
	return bases
}

// openMutations is the child: it opens a batch of mutations.
func openMutations() int {
	base := os.Getenv(dirEnv)
	from, _ := strconv.Atoi(os.Getenv(fromEnvName))
	to, _ := strconv.Atoi(os.Getenv(toEnvName))
	var bases []files
	for i := range 3 {
		bases = append(bases, readFiles(panics{}, filepath.Join(base, strconv.Itoa(i))))
	}
	result := map[string]int{}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for seed := from; seed < to; seed++ {
		m := mutate(bases[seed%len(bases)], uint64(seed))
		dir := filepath.Join(base, "work")
		writeFiles(panics{}, dir, m.all)
		if err := m.open(dir, result); err != nil {
			fmt.Fprintf(out, "mutation %d (%s): %v\n", seed, m.what, err)
			return 1
		}
	}
	for what, n := range result {
		fmt.Fprintf(out, "%s=%d\n", what, n)
	}
	return 0
}

// panics stands for a test where there is none.
type panics struct{ testing.TB }

func (panics) Helper()           {}
func (panics) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// A mutation is a store of which one or two files are damaged.
type mutation struct {
	what    string
	all     files
	damaged []string // names
}

func mutate(base files, seed uint64) mutation {
	random := rand.New(rand.NewPCG(seed, 77))
	m := mutation{all: maps.Clone(base)}
	older := base["older"]
	delete(m.all, "older")
	switch n := random.IntN(20); {
	case n < 14:
		m.damaged = []string{dbName}
	case n < 16:
		m.damaged = []string{journalName}
	case n < 17:
		m.damaged = []string{copyName}
	case n < 19:
		m.damaged = []string{dbName, journalName}
	default:
		m.damaged = []string{dbName, copyName}
	}
	m.damaged = slices.DeleteFunc(m.damaged, func(name string) bool { return m.all[name] == nil })
	for _, name := range m.damaged {
		kind := mutations[random.IntN(len(mutations))]
		for len(m.damaged) > 1 && strings.Contains(kind.name, "not written") {
			// A disk that takes back what it had synced, of two files, leaves
			// nothing by which to tell.
			kind = mutations[random.IntN(len(mutations))]
		}
		m.what += name + ": " + kind.name + " "
		m.all[name] = kind.do(slices.Clone(m.all[name]), older, random)
	}
	return m
}

// mutations are the ways in which a file is damaged.
var mutations = []struct {
	name string
	do   func(b, older []byte, random *rand.Rand) []byte
}{
	{"flipped bit", func(b, _ []byte, r *rand.Rand) []byte { b[r.IntN(len(b))] ^= 1 << r.IntN(8); return b }},
	{"flipped bits", func(b, _ []byte, r *rand.Rand) []byte {
		for range 1 + r.IntN(20) {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		return b
	}},
	{"flipped bit in a page header", func(b, _ []byte, r *rand.Rand) []byte {
		at := r.IntN(len(b)) / pageSize * pageSize
		b[at+r.IntN(min(160, len(b)-at))] ^= 1 << r.IntN(8)
		return b
	}},
	{"random bytes", func(b, _ []byte, r *rand.Rand) []byte {
		at := r.IntN(len(b))
		for i := at; i < min(len(b), at+1+r.IntN(600)); i++ {
			b[i] = byte(r.Uint32())
		}
		return b
	}},
	{"zeroed page", func(b, _ []byte, r *rand.Rand) []byte { clear(page(b, r)); return b }},
	{"zeroed sector", func(b, _ []byte, r *rand.Rand) []byte {
		at := r.IntN(len(b)) / 512 * 512
		clear(b[at:min(len(b), at+512)])
		return b
	}},
	{"cut short", func(b, _ []byte, r *rand.Rand) []byte { return b[:r.IntN(len(b))] }},
	{"cut at a page", func(b, _ []byte, r *rand.Rand) []byte { return b[:r.IntN(len(b))/pageSize*pageSize] }},
	{"swapped pages", func(b, _ []byte, r *rand.Rand) []byte {
		one, two := page(b, r), page(b, r)
		if len(one) == len(two) {
			kept := slices.Clone(one)
			copy(one, two)
			copy(two, kept)
		}
		return b
	}},
	{"page written to another place", func(b, _ []byte, r *rand.Rand) []byte { copy(page(b, r), page(b, r)); return b }},
	{"page not written", func(b, older []byte, r *rand.Rand) []byte {
		at := r.IntN(len(b)) / pageSize * pageSize
		if at < len(older) {
			copy(b[at:min(len(b), at+pageSize)], older[at:])
		}
		return b
	}},
	{"newest pages not written", func(b, older []byte, r *rand.Rand) []byte {
		at := r.IntN(len(b)) / pageSize * pageSize
		if at < len(older) {
			copy(b[at:], older[at:min(len(older), len(b))])
		}
		return b
	}},
	{"meta page", func(b, _ []byte, r *rand.Rand) []byte {
		b[min(len(b)-1, r.IntN(2)*pageSize+r.IntN(80))] ^= 1 << r.IntN(8)
		return b
	}},
	{"both meta pages", func(b, _ []byte, r *rand.Rand) []byte {
		b[min(len(b)-1, 16+r.IntN(64))] ^= 1 << r.IntN(8)
		b[min(len(b)-1, pageSize+16+r.IntN(64))] ^= 1 << r.IntN(8)
		return b
	}},
	{"emptied", func([]byte, []byte, *rand.Rand) []byte { return []byte{} }},
	{"grown", func(b, _ []byte, r *rand.Rand) []byte { return append(b, make([]byte, r.IntN(9000))...) }},
}

// page is any page of b.
func page(b []byte, r *rand.Rand) []byte {
	at := r.IntN(len(b)) / pageSize * pageSize
	return b[at:min(len(b), at+pageSize)]
}

// open opens the store and counts what came of it; an error is what must not.
func (m mutation) open(dir string, result map[string]int) error {
	db, err := Open(Options{Dir: dir})
	if err != nil {
		result["refused"]++
		return m.refused(dir, err)
	}
	defer db.Close()
	result["opened"]++
	if db.Recovery() != "" {
		result["recovered"]++
	}
	if err := m.served(db, result); err != nil {
		return fmt.Errorf("%w; recovery: %s", err, db.Recovery())
	}
	if err := m.kept(dir, db.Recovery()); err != nil {
		return err
	}
	if err := tryPut(db, step(mutationSteps+1)...); err != nil {
		return fmt.Errorf("write afterwards: %w", err)
	}
	if err := db.keepCopy(context.Background()); err != nil {
		return fmt.Errorf("copy afterwards: %w", err)
	}
	if err := db.Close(); err != nil {
		return err
	}
	return Verify(filepath.Join(dir, dbName))
}

// refused checks that there was reason to refuse, and that all files are as they
// were.
func (m mutation) refused(dir string, err error) error {
	if len(m.damaged) < 2 {
		return fmt.Errorf("refused: %w", err)
	}
	if !strings.Contains(err.Error(), "restore a backup") {
		return fmt.Errorf("refused without a word what to do: %w", err)
	}
	if now := readFiles(panics{}, dir); !maps.EqualFunc(now, m.all, bytes.Equal) {
		return fmt.Errorf("refused, and files have changed: %w", err)
	}
	return nil
}

// served checks the rows.
func (m mutation) served(db *DB, result map[string]int) error {
	got, err := readAll(db)
	if err != nil {
		return err
	}
	last, _ := strconv.Atoi(got["own/last"])
	if !maps.Equal(got, rowsAfter(last)) {
		return fmt.Errorf("wrong rows, as of step %d perhaps", last)
	}
	if last == mutationSteps {
		return nil
	}
	result["older"]++
	if len(m.damaged) < 2 || !strings.Contains(db.Recovery(), "lost") && !strings.Contains(db.Recovery(), "not whole") {
		return fmt.Errorf("rows as of step %d of %d", last, mutationSteps)
	}
	return nil
}

// kept checks that the damaged files that Recovery speaks of are still there.
func (m mutation) kept(dir, recovery string) error {
	now := readFiles(panics{}, dir)
	for _, name := range m.damaged {
		if !strings.Contains(recovery, name+" cannot be used") {
			continue
		}
		found := false
		for aside, b := range now {
			found = found || strings.HasPrefix(aside, name+".damaged-") && bytes.Equal(b, m.all[name])
		}
		if !found {
			return fmt.Errorf("damaged %s is gone; recovery: %s", name, recovery)
		}
	}
	return nil
}

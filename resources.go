package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/store"
)

// resources keeps what the gateway routes in step with files: it loads them,
// looks at them again when it is polled, and applies a new content only when
// the whole of it is without fault. Until then the last good one stays.
type resources struct {
	// Fixed at construction.
	paths   []string
	options store.LoadOptions
	apply   func(*store.Set) error
	log     *slog.Logger
	now     func() time.Time

	// Owned by whoever calls load, poll and reload: one goroutine at a time.
	named  []string  // files that the applied resources name: certificates and keys of backends
	stamp  string    // of the files' metadata, at the last look
	recent bool      // a file had changed so shortly before the last look that its stamp may not tell a further change
	seen   contents  // at the last look
	tried  contents  // loaded last, for good or ill
	again  time.Time // when the same is tried once more; zero when that would not help

	mu      sync.Mutex // guards the field below
	refused string     // why what is in the files is not in force; empty when it is
}

// contents has the SHA-256 of each file.
type contents map[string][sha256.Size]byte

// clockGrain is more than the finest time that a file system tells apart.
const clockGrain = 2 * time.Second

// maxRead is how much of a file is looked at. The store refuses files far
// smaller than that, so what lies beyond is never in force.
const maxRead = 64 << 20

// load reads all files and applies them, or reports every fault in them and
// changes nothing.
func (r *resources) load() error {
	begin := time.Now()
	r.again = time.Time{}
	r.tried = look(r.files())
	defer func() { r.seen = r.tried }()
	set := &store.Set{}
	if len(r.paths) > 0 {
		loaded, err := store.Load(r.options, r.paths...)
		if err != nil {
			return err
		}
		set = loaded
	}
	if err := r.apply(set); err != nil {
		return fmt.Errorf("apply resources: %w", err)
	}
	r.name(set)
	r.note(nil) // before it is said that all is well
	for _, warning := range set.Warnings() {
		r.log.Warn("resource without effect", "what", warning)
	}
	r.log.Info("resources applied", "routes", len(set.GRPCRoutes), "backends", len(set.Backends),
		"took", time.Since(begin).Round(time.Microsecond))
	return nil
}

// poll looks at the files and reloads when they have changed and settled.
func (r *resources) poll() {
	if r.settled() || !r.again.IsZero() && r.now().After(r.again) {
		r.reload()
	}
}

// tryAgain is how long after there was no room the same is tried once more: it costs
// as much as a change.
const tryAgain = 10 * time.Second

// reload loads and, when that is refused, says so and lets things be.
func (r *resources) reload() {
	if err := r.load(); err != nil {
		r.reject(err)
	}
}

// reject says why what is in the files is not in force. When it is only that there
// was no room for it, the same is tried again, and not said again.
func (r *resources) reject(err error) {
	news := r.note(err)
	if errors.Is(err, store.ErrFull) {
		r.again = r.now().Add(tryAgain)
		if !news {
			return
		}
	}
	var faults store.Faults
	if !errors.As(err, &faults) {
		r.log.Error("resources refused, last good ones kept", "error", err)
		return
	}
	for _, fault := range faults {
		r.log.Error("resource fault", "file", fault.File, "line", fault.Line, "column", fault.Column,
			"field", fault.Field, "error", fault.Message)
	}
	r.log.Error("resources refused, last good ones kept", "faults", len(faults))
}

// note keeps what is wrong with the files, for whoever asks, and says whether it is
// something else than before.
func (r *resources) note(err error) (news bool) {
	refused := ""
	if err != nil {
		first, more, _ := strings.Cut(err.Error(), "\n")
		refused = "the resources are refused, the last good ones are in force: " + first
		if n := strings.Count(more, "\n"); more != "" {
			refused += fmt.Sprintf(" (and %s)", count(n+1, "other fault"))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	news = r.refused != refused
	r.refused = refused
	return news
}

// Problems are what status shows of the files.
func (r *resources) Problems() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused == "" {
		return nil
	}
	return []string{r.refused}
}

// settled says whether there is a content that has not been tried and that
// was the same at the last look: a file is not read while it is written.
func (r *resources) settled() bool {
	stamp, recent := r.metadata()
	if stamp == r.stamp && !r.recent && maps.Equal(r.seen, r.tried) {
		return false
	}
	r.stamp, r.recent = stamp, recent
	last := r.seen
	r.seen = look(r.files())
	return !maps.Equal(r.seen, r.tried) && maps.Equal(r.seen, last)
}

// metadata returns what is known of the files without reading them. A change
// within clockGrain of an earlier one may leave it as it was: recent warns.
func (r *resources) metadata() (stamp string, recent bool) {
	now := time.Now()
	var b []byte
	for _, file := range r.files() {
		info, err := os.Stat(file)
		if err != nil {
			b = fmt.Appendf(b, "%q %v\n", file, err)
			continue
		}
		b = fmt.Appendf(b, "%q %d %d\n", file, info.Size(), info.ModTime().UnixNano())
		recent = recent || now.Sub(info.ModTime()).Abs() < clockGrain
	}
	return string(b), recent
}

// look reads all files; one that cannot be read counts by its error.
func look(files []string) contents {
	found := contents{}
	for _, file := range files {
		h := sha256.New()
		err := hashFile(h, file)
		if err != nil {
			fmt.Fprintln(h, err)
		}
		found[file] = [sha256.Size]byte(h.Sum(nil))
	}
	return found
}

// hashFile reads what is a file in the plain sense: a pipe would be waited for.
func hashFile(h io.Writer, name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%q is no regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(h, io.LimitReader(f, maxRead))
	return err
}

// name adds the files that the resources just applied name to those that are
// looked at, and forgets those that earlier ones named.
func (r *resources) name(set *store.Set) {
	named := map[string]bool{}
	for _, backend := range set.Backends {
		if tls := backend.Spec.TLS; tls != nil {
			named[tls.CAFile], named[tls.CertFile], named[tls.KeyFile] = true, true, true
		}
	}
	delete(named, "")
	r.named = slices.Sorted(maps.Keys(named))

	known := r.tried
	r.tried = contents{}
	var added []string
	for _, file := range r.files() {
		if sum, ok := known[file]; ok {
			r.tried[file] = sum
		} else {
			added = append(added, file)
		}
	}
	maps.Copy(r.tried, look(added))
}

// files lists what the paths stand for at this moment, by the rules of
// store.Load, and what is named there.
func (r *resources) files() []string {
	files := slices.Clone(r.named)
	for _, path := range r.paths {
		entries, err := os.ReadDir(path)
		if err != nil { // a file, or nothing
			files = append(files, path)
			continue
		}
		for _, entry := range entries {
			if store.InFolder(entry.Name()) {
				files = append(files, filepath.Join(path, entry.Name()))
			}
		}
	}
	return files
}

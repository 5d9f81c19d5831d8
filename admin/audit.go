package admin

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/admin/v1"
)

// How much is kept: 100,000 lines, of 90 days. What was done, who came and went,
// and what was refused have bounds of their own: whoever provokes refusals, or may
// do nothing but come and go, cannot push out what was done.
const (
	auditDone    = 70_000
	auditVisits  = 10_000
	auditRefused = 20_000
	auditBytes   = 64 << 20 // of each of the three
	auditAge     = 90 * 24 * time.Hour
)

// auditLog is the book of what was done and what was refused. A line is durable
// when write returns.
type auditLog struct {
	records Records
	now     func() time.Time
	log     *slog.Logger

	most      map[string]int // lines of each volume
	mostBytes int64          // of each volume

	mu      sync.Mutex // guards the fields below
	pace    *auditPace
	omitted uint64 // refusals since the last line that tells of them
}

// The volumes of the book, which share one sequence of ids.
const (
	doneVolume    = "done"
	visitsVolume  = "visits"
	refusedVolume = "refused"
)

const (
	auditPrefix  = "audit/"
	auditMetaKey = "audit-volumes"
)

// auditMeta is what the book has, so that nobody has to count.
type auditMeta struct {
	Next    uint64                 `json:"next"`
	Volumes map[string]auditVolume `json:"volumes"`
}

type auditVolume struct {
	Lines int   `json:"lines"`
	Bytes int64 `json:"bytes"`
}

func newAuditLog(records Records, now func() time.Time, log *slog.Logger) *auditLog {
	return &auditLog{
		records: records, now: now, log: log, pace: newAuditPace(now),
		most:      map[string]int{doneVolume: auditDone, visitsVolume: auditVisits, refusedVolume: auditRefused},
		mostBytes: auditBytes,
	}
}

func auditKey(volume string, id uint64) string {
	return fmt.Sprintf("%s%s/%016x", auditPrefix, volume, id)
}

func volumeOf(e *adminv1.AuditEntry) string {
	switch {
	case e.Refused:
		return refusedVolume
	case e.Action == "SignIn" || e.Action == "SignOut":
		return visitsVolume
	}
	return doneVolume
}

// write adds a line, unless it is a refusal too many: these are counted, and Run
// tells how many there were.
func (l *auditLog) write(entry *adminv1.AuditEntry) {
	if entry.Refused {
		if !l.admit(entry) {
			return
		}
		l.log.Info("admin call refused", "action", plainText(entry.Action), "actor", entry.Actor,
			"address", entry.Address, "why", plainText(entry.Why))
	}
	if err := l.append(entry); err != nil {
		// What was done is done, and is in the objects' history.
		l.log.Error("audit line lost", "actor", entry.Actor, "action", entry.Action, "refused", entry.Refused, "error", err)
	}
}

func (l *auditLog) admit(entry *adminv1.AuditEntry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pace.admit(entry.Address + " " + entry.Actor) {
		return true
	}
	l.omitted++
	return false
}

func (l *auditLog) append(entry *adminv1.AuditEntry) error {
	entry = fitAudit(entry)
	entry.Time = timestamppb.New(l.now())
	return l.records.Update(func(tx RecordsTx) error {
		meta, err := getAuditMeta(tx)
		if err != nil {
			return err
		}
		meta.Next++
		entry.Id = meta.Next
		line, err := proto.Marshal(entry)
		if err != nil {
			return err
		}
		volume := volumeOf(entry)
		if err := tx.Put(auditKey(volume, entry.Id), line); err != nil {
			return err
		}
		meta.add(volume, 1, len(line))
		if err := l.prune(tx, meta, volume); err != nil {
			return err
		}
		return put(tx, auditMetaKey, meta)
	})
}

func getAuditMeta(tx RecordsTx) (*auditMeta, error) {
	meta, err := get[auditMeta](tx, auditMetaKey)
	if meta == nil {
		meta = &auditMeta{}
	}
	if meta.Volumes == nil {
		meta.Volumes = map[string]auditVolume{}
	}
	return meta, err
}

func (m *auditMeta) add(volume string, lines, bytes int) {
	v := m.Volumes[volume]
	m.Volumes[volume] = auditVolume{v.Lines + lines, v.Bytes + int64(bytes)}
}

// prune deletes the oldest lines that are too many, too long together, or too old.
func (l *auditLog) prune(tx RecordsTx, meta *auditMeta, volume string) error {
	oldest := l.now().Add(-auditAge)
	lines, bytes := meta.Volumes[volume].Lines, meta.Volumes[volume].Bytes
	var keys []string
	err := eachLine(tx, volume, func(key string, line []byte) bool {
		if lines <= l.most[volume] && bytes <= l.mostBytes && !olderThan(line, oldest) {
			return false
		}
		keys = append(keys, key)
		lines, bytes = lines-1, bytes-int64(len(line))
		return true
	})
	if err != nil {
		return err
	}
	meta.Volumes[volume] = auditVolume{lines, bytes}
	return deleteAll(tx, keys)
}

// eachLine visits the lines of a volume, the oldest first.
func eachLine(tx RecordsTx, volume string, visit func(key string, line []byte) bool) error {
	prefix := auditPrefix + volume + "/"
	return tx.Scan(prefix, func(key string, line []byte) bool {
		return strings.HasPrefix(key, prefix) && visit(key, line)
	})
}

// forget deletes what is too old. It writes nothing when nothing is.
func (l *auditLog) forget() error {
	oldest := l.now().Add(-auditAge)
	old := false
	err := l.records.View(func(tx RecordsTx) error {
		for volume := range l.most {
			err := eachLine(tx, volume, func(_ string, line []byte) bool {
				old = old || olderThan(line, oldest)
				return false // the first is the oldest
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || !old {
		return err
	}
	return l.records.Update(func(tx RecordsTx) error {
		meta, err := getAuditMeta(tx)
		if err != nil {
			return err
		}
		for volume := range l.most {
			if err := l.prune(tx, meta, volume); err != nil {
				return err
			}
		}
		return put(tx, auditMetaKey, meta)
	})
}

func olderThan(line []byte, oldest time.Time) bool {
	var entry adminv1.AuditEntry
	return proto.Unmarshal(line, &entry) == nil && entry.Time.AsTime().Before(oldest)
}

// tellOmitted writes a line about the refusals that have none.
func (l *auditLog) tellOmitted() {
	l.mu.Lock()
	omitted := l.omitted
	l.omitted = 0
	l.mu.Unlock()
	if omitted == 0 {
		return
	}
	err := l.append(&adminv1.AuditEntry{
		Actor: "sluice", Action: "Refusals", Refused: true,
		Why: strconv.FormatUint(omitted, 10) + " more refusals came too fast to have a line each",
	})
	if err != nil {
		l.log.Error("audit line lost", "action", "Refusals", "omitted", omitted, "error", err)
	}
}

// auditQuery picks lines.
type auditQuery struct {
	limit   int
	before  uint64 // 0: from the latest on
	actor   string // empty: of all
	ref     *adminv1.Ref
	refused bool // only these
}

func (q *auditQuery) picks(e *adminv1.AuditEntry) bool {
	if q.actor != "" && e.Actor != q.actor {
		return false
	}
	return q.ref == nil || slices.ContainsFunc(e.Refs, func(r *adminv1.Ref) bool { return sameRef(r, q.ref) })
}

// sameRef compares, with an empty part in want for any.
func sameRef(got, want *adminv1.Ref) bool {
	same := func(got, want string) bool { return want == "" || got == want }
	return same(got.Kind, want.Kind) && same(got.Name, want.Name) &&
		same(cmp.Or(got.Namespace, "default"), want.Namespace)
}

// list returns the lines that the query picks, the latest first.
func (l *auditLog) list(q auditQuery) ([]*adminv1.AuditEntry, error) {
	volumes := []string{doneVolume, visitsVolume, refusedVolume}
	if q.refused {
		volumes = volumes[2:]
	}
	var found []*adminv1.AuditEntry
	err := l.records.View(func(tx RecordsTx) error {
		for _, volume := range volumes {
			lines, err := latest(tx, volume, q)
			if err != nil {
				return err
			}
			found = append(found, lines...)
		}
		return nil
	})
	slices.SortFunc(found, func(x, y *adminv1.AuditEntry) int { return cmp.Compare(y.Id, x.Id) })
	return found[:min(len(found), q.limit)], err
}

func latest(tx RecordsTx, volume string, q auditQuery) ([]*adminv1.AuditEntry, error) {
	prefix, from := auditPrefix+volume+"/", auditKey(volume, math.MaxUint64)
	if q.before != 0 {
		from = auditKey(volume, q.before-1)
	}
	var found []*adminv1.AuditEntry
	var failed error
	err := tx.ScanBack(from, func(key string, line []byte) bool {
		if !strings.HasPrefix(key, prefix) {
			return false
		}
		entry := new(adminv1.AuditEntry)
		if failed = proto.Unmarshal(line, entry); failed != nil {
			failed = fmt.Errorf("read record %q: %w", key, failed)
			return false
		}
		if q.picks(entry) {
			found = append(found, entry)
		}
		return len(found) < q.limit
	})
	return found, errors.Join(err, failed)
}

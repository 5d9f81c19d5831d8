package cluster

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	// refusalPace is how often one reason is named in the log for one address.
	refusalPace = time.Minute
	// maxRefusers bounds the addresses that are told apart; the others are "others".
	maxRefusers = 256
	// maxRefusalLine bounds what a stranger can have in a line of the log, in bytes.
	maxRefusalLine = 300
)

// reason is why something of a peer, or of a stranger, was not taken.
type reason string

// The reasons, as metrics name them.
const (
	wrongKey      reason = "key"       // encrypted with a key that this node does not have, or tampered with
	notEncrypted  reason = "plain"     // not encrypted, and this node has a key
	hereNoKey     reason = "encrypted" // encrypted, and this node has no key
	otherLabel    reason = "label"     // of another cluster
	malformed     reason = "malformed" // not to be understood
	tooLarge      reason = "too_large"
	tooMany       reason = "too_many"         // all streams, or the queue, are taken
	tooManyOfOne  reason = "too_many_of_one"  // streams of that address
	strangers     reason = "flood_of_packets" // of addresses that are no member's
	noDescriptors reason = "no_descriptors"   // the process has no file descriptors left
	otherNode     reason = "other_node"       // meant for a node that is not here any more
	otherProtocol reason = "protocol"         // of a version of gossip that does not fit
	badMember     reason = "member"           // a node with a name or metadata that Sluice does not make
	unfinished    reason = "unfinished"       // a stream that ended, or was silent, too early
	unreachable   reason = "unreachable"      // a peer was; nothing was refused
	notRemembered reason = "not_remembered"   // the disk did not take who is there
	clockAhead    reason = "clock_ahead"      // an object with a revision from the future
	badObject     reason = "invalid_object"
	wrongSender   reason = "wrong_sender"
	newerMessage  reason = "unknown_message" // of a newer version: no fault of the sender's
	otherTrouble  reason = "other"
)

// messageReasons are why a message of a member, or an object of one, is refused: the
// metrics have them from the start.
var messageReasons = []reason{malformed, tooLarge, clockAhead, badObject, wrongSender, newerMessage}

// sayings explain the reasons to whoever reads the log.
var sayings = map[reason]string{
	wrongKey:      "encrypted with a key that this node does not have; is gossip-key-file the same at all nodes?",
	notEncrypted:  "not encrypted, and this node has a gossip-key-file",
	hereNoKey:     "encrypted, and this node has no gossip-key-file",
	otherLabel:    "of another gossip-label",
	malformed:     "not to be understood",
	tooLarge:      "larger than any message of gossip",
	tooMany:       "there is no room for more at once",
	tooManyOfOne:  "too many streams of one address at once",
	strangers:     "too many packets of strangers",
	noDescriptors: "no file descriptor is left; raise the limit of the process (LimitNOFILE)",
	otherNode:     "meant for another node",
	otherProtocol: "of another version of gossip",
	badMember:     "not a node of Sluice",
	unfinished:    "ended too early",
	unreachable:   "a peer cannot be reached",
	clockAhead:    "made by a clock that is too far ahead",
	badObject:     "an object that no gateway makes",
	wrongSender:   "of a sender that is no member, or in the name of another",
	newerMessage:  "of a newer version; no fault",
	notRemembered: "who is there could not be written, and is not known after a restart",
}

// lineReasons classify what memberlist says, by the first text that a line has. An empty
// reason is no trouble, or one that is told of elsewhere.
var lineReasons = []struct {
	text   string
	reason reason
}{
	{"unacceptable label", otherLabel}, // first: the label is anybody's text
	{"Decrypt packet failed: no installed keys", wrongKey},
	{"Decrypt packet failed: ", notEncrypted},
	{"no installed keys could decrypt", wrongKey},
	{"encryption is configured but remote state is not encrypted", notEncrypted},
	{"remote state is encrypted and encryption is not configured", hereNoKey},
	{"unsupported encryption version", malformed},
	{"protocol version", otherProtocol},
	{"larger than limit", tooLarge},
	{"exceeds limit", tooLarge},
	{"more than streams may hold", ""}, // counted where it was refused
	{"Too many pending push/pull", tooMany},
	{"handler queue full", tooMany},
	{"unexpected node", otherNode},
	{"ignoring alive message", ""}, // by the delegate that refused it
	{"Failed push/pull merge", badMember},
	{"Conflicting address", ""}, // by the delegate that was told
	{"Refuting", ""},
	{"Suspect ", ""},
	{"Marking ", ""},
	{"Updating address", ""},
	{"Remote node state size", ""},
	{"Binding to public address", ""},
	{"Leave but", ""},
	{"Failed fallback TCP ping", unreachable},
	{"over TCP but UDP probes failed", ""}, // told by the reach of the member
	{"Push/Pull with", unreachable},
	{"Failed to send", unreachable},
	{"Failed to forward ack", unreachable},
	{"Failed to push local state", unreachable},
	{"use of closed network connection", ""},
	{"i/o timeout", unfinished},
	{"timeout", unfinished},
	{"connection reset", unfinished},
	{"EOF", unfinished},
	{"broken pipe", unfinished},
	{"truncated", malformed},
	{"failed to receive", malformed},
	{"Failed to decode", malformed},
	{"Failed to decompress", malformed},
	{"Failed to receive user message", malformed},
	{"Failed to read remote state", malformed},
	{"not supported", malformed},
	{"invalid msgType", malformed},
	{"invalid checksum", malformed},
	{"missing message type", malformed},
	{"label", malformed},
	{"wrong: ", otherProtocol},
	{"Vsn is not present", otherProtocol},
}

// refusals count what was not taken and say so in the log, at a pace that nobody sets
// who floods. The methods may be called from any goroutine, and never block.
type refusals struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex // guards the fields below
	counts map[reason]uint64
	lines  map[refuser]*refusal
}

// refuser is one line of the log.
type refuser struct {
	why  reason
	from string
}

// refusal is what was refused since the line was last written.
type refusal struct {
	said  time.Time
	count uint64
	line  string
}

func newRefusals(now func() time.Time, log *slog.Logger) *refusals {
	r := &refusals{log: log, now: now, counts: map[reason]uint64{}, lines: map[refuser]*refusal{}}
	for _, why := range messageReasons {
		r.counts[why] = 0
	}
	return r
}

// add counts something that was refused. From is the node that sent it or, where nobody
// knows which that is, an address; the line is what is known of it beside the reason, or
// empty.
func (r *refusals) add(why reason, from, line string) { r.addMany(why, from, line, 1) }

// addMany is add of n at once.
func (r *refusals) addMany(why reason, from, line string, n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[why] += n
	key := refuser{why, from}
	known := r.lines[key]
	if known == nil && len(r.lines) >= maxRefusers {
		key.from = "others"
		known = r.lines[key]
	}
	if known == nil {
		known = &refusal{}
		r.lines[key] = known
	}
	known.count += n
	known.line = line
	if now := r.now(); now.Sub(known.said) >= refusalPace {
		r.say(key, known, now)
	}
}

// say writes a line. Its caller holds mu.
func (r *refusals) say(key refuser, known *refusal, now time.Time) {
	level := slog.LevelWarn
	if key.why == unreachable || key.why == unfinished {
		level = slog.LevelInfo
	}
	text := "gossip refused"
	if key.why == unreachable || key.why == notRemembered {
		text = "gossip failed"
	}
	attrs := []any{"reason", string(key.why), "count", known.count}
	if key.from != "" {
		attrs = append(attrs, "from", key.from)
	}
	if saying := sayings[key.why]; saying != "" {
		attrs = append(attrs, "meaning", saying)
	}
	if known.line != "" {
		attrs = append(attrs, "detail", known.line)
	}
	r.log.Log(context.Background(), level, text, attrs...)
	known.said, known.count = now, 0
}

// sweep says what has been counted and not said for a while, and forgets who has been
// quiet since.
func (r *refusals) sweep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	for key, known := range r.lines {
		switch {
		case now.Sub(known.said) < refusalPace:
		case known.count > 0:
			r.say(key, known, now)
		default:
			delete(r.lines, key)
		}
	}
}

// counted are the counters so far, by reason.
func (r *refusals) counted() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := make(map[string]uint64, len(r.counts))
	for why, n := range r.counts {
		if why != unreachable && why != notRemembered {
			counts[string(why)] = n
		}
	}
	return counts
}

// lineHandler takes the lines of memberlist's log, of which each is a record that has
// nothing but a message.
type lineHandler struct{ refusals *refusals }

var _ slog.Handler = lineHandler{}

func (lineHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h lineHandler) WithAttrs([]slog.Attr) slog.Handler     { return h }
func (h lineHandler) WithGroup(string) slog.Handler          { return h }

// Handle counts what a line says.
func (h lineHandler) Handle(_ context.Context, record slog.Record) error {
	h.refusals.take(record.Message)
	return nil
}

// take counts what a line of memberlist says.
func (r *refusals) take(line string) {
	text := line[:min(len(line), maxRefusalLine)]
	if why := classify(text); why != "" {
		from := fromOf(line)
		if from == "" && why == unreachable {
			from = towards(line)
		}
		r.add(why, from, strings.TrimSpace(strings.TrimPrefix(trimLevel(text), "memberlist: ")))
	}
}

// classify is the reason of a line, empty for what is no trouble.
func classify(line string) reason {
	if strings.HasPrefix(line, "[DEBUG]") {
		return ""
	}
	for _, known := range lineReasons {
		if strings.Contains(line, known.text) {
			return known.reason
		}
	}
	return otherTrouble
}

// trimLevel is a line without memberlist's level.
func trimLevel(line string) string {
	if strings.HasPrefix(line, "[") {
		if _, rest, found := strings.Cut(line, "] "); found {
			return rest
		}
	}
	return line
}

// towards is the address, without its port, of a connection that a line of memberlist says
// has failed: it is of the peer that the line is about, whatever else it says.
func towards(line string) string {
	for _, mark := range []string{"->", "dial tcp ", "dial udp "} {
		if _, rest, found := strings.Cut(line, mark); found {
			address, _, _ := strings.Cut(rest, ": ")
			if at, err := netip.ParseAddrPort(address); err == nil {
				return at.Addr().Unmap().String()
			}
		}
	}
	return ""
}

// fromOf is the address, without its port, that ends a line of memberlist.
func fromOf(line string) string {
	i := strings.LastIndex(line, "from=")
	if i < 0 {
		return ""
	}
	from := strings.TrimSpace(line[i+len("from="):])
	if colon := strings.LastIndexByte(from, ':'); colon >= 0 {
		from = from[:colon]
	}
	return strings.Trim(from[:min(len(from), 64)], "[]")
}

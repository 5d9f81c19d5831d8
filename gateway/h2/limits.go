package h2

import "time"

// Limits are what one peer may ask of us. The zero value of a field means its
// default; each is written beside it with the reason. FAULTS names the attack
// that each one ends.
type Limits struct {
	// MaxConcurrentStreams a client may have open; beyond, REFUSED_STREAM. 100 is
	// what grpc clients assume before they have seen a server's SETTINGS.
	MaxConcurrentStreams uint32
	// HeaderBytes and HeaderFields bound one header section, sizes as RFC 9113
	// section 6.5.2 counts them. 16 KiB and 100: twice what grpc-go sends in its
	// own tests, and room for a large token.
	HeaderBytes  int
	HeaderFields int
	// Continuations of one header block. 8 frames hold 128 KiB, eight times the limit.
	Continuations int
	// QueuedControl is how many replies that the peer provoked (PING and SETTINGS
	// acknowledgements, RST_STREAM) may wait in our output. 1000.
	QueuedControl int
	// Settings and Pings are how many of these frames may come between two frames
	// of ours that carry an RPC; each refills at 33 a second. 1000.
	Settings int
	Pings    int
	// Resets a peer may cause before the connection ends: premature ones of its
	// own, and those that its violations force on us. 200, refilled at 33 a second.
	Resets int
	// EmptyFrames in a row: DATA without payload or END_STREAM, HEADERS fragments
	// without content. 10.
	EmptyFrames int
	// TinyData is how many DATA frames smaller than a gRPC prefix (5 bytes), and
	// SmallData how many below 256 bytes, may come without END_STREAM; refilled at
	// 1,000 and 100,000 a second.
	TinyData  int
	SmallData int
	// Priorities is how many PRIORITY frames per stream opened, plus one. 100.
	Priorities int
	// WindowUpdates: 5 + this × (streams opened + 10 × DATA frames sent), Envoy's formula. 2.
	WindowUpdates int
	// Unknown frames of types that we do not know. 10,000, refilled at 330 a second.
	Unknown int
	// Informational 1xx responses of one stream. 100.
	Informational int

	// Window is the stream window that we start with, MaxWindow the largest it
	// grows to, WindowBudget what all growth together may take, ConnWindow the
	// connection's. In bytes: 64 KiB (16 KiB towards backends), 1 MiB, 256 MiB, 4 MiB.
	Window       int32
	MaxWindow    int32
	WindowBudget int64
	ConnWindow   int32
	// QueueBudget is how many bytes of DATA may wait for slow peers in the whole
	// process before the largest stalled stream is ended. 512 MiB.
	QueueBudget int64
	// StuckOutput is how much may wait, beyond what the sockets hold, for a backend
	// that takes nothing, before it is sent no more requests: their headers have no
	// window, and they may be given up and replaced at any pace. A thousand of 4 KiB.
	StuckOutput int

	// Preface bounds the time from accept to the peer's SETTINGS. 5 s.
	Preface time.Duration
	// SettingsAck bounds the wait for the acknowledgement of ours. 10 s.
	SettingsAck time.Duration
	// StreamStall ends a stream whose waiting bytes its peer has not taken. 5 min.
	StreamStall time.Duration
	// MinRate (bytes a second, over RateWindow) is what a peer must take while
	// bytes wait for it. 100 B/s over 60 s.
	MinRate    int64
	RateWindow time.Duration
	// Idle is how long a connection without streams is kept. 1 h.
	Idle time.Duration
	// Linger is how long a connection that ends in error may take to accept the
	// GOAWAY. 1 s.
	Linger time.Duration
	// MaxAge is when a client is asked to open another connection, so that whatever is in
	// front of us spreads them anew: within a tenth of it, before or after. AgeGrace is how
	// long its streams may go on then. Both have no default: zero sets no bound.
	MaxAge   time.Duration
	AgeGrace time.Duration
	// MaxUpstreamStreams caps what we open on one connection to a backend. 1000.
	MaxUpstreamStreams uint32
}

// removedLimit names one limit, as in removable, that New leaves out. Only a test binary sets it,
// by -ldflags "-X sluice/gateway/h2.removedLimit=NAME", to see which tests then go red.
var removedLimit string

const unlimited = 1 << 30

// withDefaults returns a copy with every zero field filled in.
func (l Limits) withDefaults() Limits {
	def(&l.MaxConcurrentStreams, 100)
	def(&l.HeaderBytes, 16<<10)
	def(&l.HeaderFields, 100)
	def(&l.Continuations, 8)
	def(&l.QueuedControl, 1000)
	def(&l.Settings, 1000)
	def(&l.Pings, 1000)
	def(&l.Resets, 200)
	def(&l.EmptyFrames, 10)
	def(&l.TinyData, 1000)
	def(&l.SmallData, 100_000)
	def(&l.Priorities, 100)
	def(&l.WindowUpdates, 2)
	def(&l.Unknown, 10_000)
	def(&l.Informational, 100)
	def(&l.Window, 64<<10)
	def(&l.MaxWindow, 1<<20)
	def(&l.WindowBudget, 256<<20)
	def(&l.ConnWindow, 4<<20)
	def(&l.QueueBudget, 512<<20)
	def(&l.StuckOutput, 4<<20)
	def(&l.Preface, 5*time.Second)
	def(&l.SettingsAck, 10*time.Second)
	def(&l.StreamStall, 5*time.Minute)
	def(&l.MinRate, 100)
	def(&l.RateWindow, time.Minute)
	def(&l.Idle, time.Hour)
	def(&l.Linger, time.Second)
	def(&l.MaxUpstreamStreams, 1000)
	if remove, ok := removable[removedLimit]; ok {
		remove(&l)
	}
	return l
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// removable is every limit that a test must miss when it is gone.
var removable = map[string]func(*Limits){
	"max_concurrent_streams": func(l *Limits) { l.MaxConcurrentStreams = unlimited },
	"header_bytes":           func(l *Limits) { l.HeaderBytes = unlimited },
	"header_fields":          func(l *Limits) { l.HeaderFields = unlimited },
	"continuations":          func(l *Limits) { l.Continuations = unlimited },
	"queued_control":         func(l *Limits) { l.QueuedControl = unlimited },
	"settings":               func(l *Limits) { l.Settings = unlimited },
	"pings":                  func(l *Limits) { l.Pings = unlimited },
	"resets":                 func(l *Limits) { l.Resets = unlimited },
	"empty_frames":           func(l *Limits) { l.EmptyFrames = unlimited },
	"tiny_data":              func(l *Limits) { l.TinyData = unlimited },
	"small_data":             func(l *Limits) { l.SmallData = unlimited },
	"priorities":             func(l *Limits) { l.Priorities = unlimited },
	"window_updates":         func(l *Limits) { l.WindowUpdates = unlimited },
	"unknown":                func(l *Limits) { l.Unknown = unlimited },
	"informational":          func(l *Limits) { l.Informational = unlimited },
	"window_budget":          func(l *Limits) { l.WindowBudget = 1 << 50 },
	"queue_budget":           func(l *Limits) { l.QueueBudget = 1 << 50 },
	"stuck_output":           func(l *Limits) { l.StuckOutput = unlimited },
	"preface":                func(l *Limits) { l.Preface = 24 * time.Hour },
	"settings_ack":           func(l *Limits) { l.SettingsAck = 24 * time.Hour },
	"stream_stall":           func(l *Limits) { l.StreamStall = 24 * time.Hour },
	"min_rate":               func(l *Limits) { l.MinRate = -1 },
	"idle":                   func(l *Limits) { l.Idle = 24 * time.Hour },
	"linger":                 func(l *Limits) { l.Linger = 24 * time.Hour },
	"max_upstream_streams":   func(l *Limits) { l.MaxUpstreamStreams = unlimited },
}

// Reason names why a connection ended or a stream was turned away: the label of
// a counter, so the list is closed.
type Reason uint8

const (
	ReasonNone Reason = iota
	ReasonClosed
	ReasonDrained
	ReasonIdle
	ReasonIO
	ReasonProtocol
	ReasonCompression
	ReasonFlowControl
	ReasonFrameSize
	ReasonPreface
	ReasonSettingsAck
	ReasonQueuedControl
	ReasonSettings
	ReasonPings
	ReasonResets
	ReasonEmptyFrames
	ReasonTinyData
	ReasonSmallData
	ReasonPriorities
	ReasonWindowUpdates
	ReasonUnknown
	ReasonContinuations
	ReasonHeaderBomb
	ReasonInformational
	ReasonMinRate
	ReasonPingTimeout
	ReasonRetired
	ReasonHeaders
	ReasonConcurrency
	ReasonMalformed
	ReasonStalled
	ReasonOverload
	ReasonDraining
	ReasonTLSReplies
	ReasonAged
	numReasons
)

var reasonNames = [numReasons]string{
	"none", "closed", "drained", "idle", "io", "protocol", "compression", "flow_control", "frame_size",
	"preface", "settings_ack", "queued_control", "settings", "pings", "resets", "empty_frames", "tiny_data",
	"small_data", "priorities", "window_updates", "unknown_frames", "continuations", "header_bomb",
	"informational", "min_rate", "ping_timeout", "retired", "header_size", "concurrency", "malformed",
	"stalled", "overload", "draining", "tls_replies", "aged",
}

func (r Reason) String() string { return reasonNames[r] }

// Reasons lists every reason's label, in order.
func Reasons() []string { return reasonNames[:] }

// allowance is a budget that refills with time: burst at once, rate a second
// thereafter. The reader owns each.
type allowance struct {
	used float64
	at   int64 // ns, of the wall clock; 0 before the first use
}

// spend takes n and reports whether the budget held.
func (a *allowance) spend(now time.Time, n, burst int, rate float64) bool {
	at := now.UnixNano()
	if a.at != 0 {
		a.used = max(0, a.used-float64(max(0, at-a.at))/1e9*rate)
	}
	a.at = at
	a.used += float64(n)
	return a.used <= float64(burst)
}

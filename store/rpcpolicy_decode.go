package store

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	maxTargetRefs    = 16
	maxAttempts      = 10
	maxRetryCount    = 1_000_000
	maxRetryInterval = time.Hour
	maxBackoff       = time.Hour
	maxHedges        = 5
	maxHedgeDelay    = time.Hour
	maxRateLimits    = 8 // of one policy
	maxRate          = 10_000_000
	maxRateWindow    = 24 * time.Hour

	defaultRateWindow = time.Second
	// backoffSpan is how many times its base a pause grows to, where the text does not
	// say: up to DefaultBackoffMax from DefaultBackoffBase.
	backoffSpan = 10
)

// codes are the names of gRPC's status codes but OK, which is no reason to try again.
var codes = []Code{
	"CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
	"UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

func readRPCPolicySpec(m *mapping) RPCPolicySpec {
	defer m.finish()
	spec := RPCPolicySpec{
		TargetRefs:      readTargetRefs(m.required("targetRefs")),
		Timeouts:        readRPCTimeouts(m.optional("timeouts")),
		Retry:           readRetryPolicy(m.optional("retry")),
		RetryConstraint: readRetryConstraint(m.optional("retryConstraint")),
		Split:           readSplitPolicy(m.optional("split")),
		CORS:            readPolicyCORS(m.optional("cors")),
		Translation:     readTranslation(m.optional("translation")),
		Expose:          readExpose(m.optional("expose")),
		Hedging:         readHedging(m.optional("hedging")),
		RateLimits:      each(m.optional("rateLimits").list(maxRateLimits), readRateLimit),
	}
	for _, ref := range spec.TargetRefs {
		if spec.Expose != nil && ref.Kind == HTTPRouteKind {
			m.optional("expose").fault("needs targets of kind %s alone: an %s has no methods to tell of", GRPCRouteKind, HTTPRouteKind)
			break
		}
	}
	return spec
}

func readTargetRefs(v *value) []TargetRef {
	items := v.list(maxTargetRefs)
	if !v.absent() && v.node.Kind == yaml.SequenceNode && len(v.node.Content) == 0 {
		v.fault("want one target or more")
	}
	refs := each(items, readTargetRef)
	seen := make(map[TargetRef]bool, len(refs))
	for i, ref := range refs {
		ref.Origin = Position{}
		if ref.Name != "" && seen[ref] {
			items[i].mapping().optional("name").fault("%s is there already", ref.Name)
		}
		seen[ref] = true
	}
	return refs
}

func readTargetRef(v *value) TargetRef {
	m := v.mapping()
	defer m.finish()
	group, hasGroup := m.required("group").checked(checkGroup)
	kind, hasKind := m.required("kind").checked(checkKind)
	section := m.optional("sectionName")
	ref := TargetRef{
		Group:       group,
		Kind:        kind,
		Name:        m.required("name").word(checkName),
		SectionName: section.word(checkName),
	}
	if !hasGroup || !hasKind || !checkTarget(m.optional("kind"), group, kind) || ref.SectionName == "" && !section.absent() {
		ref.Name = "" // reported; what it refers to nobody knows
	}
	if name := m.optional("name"); !name.absent() {
		ref.Origin = name.position()
	}
	return ref
}

// checkTarget tells whether a policy can be for such an object, and reports it at v
// when not.
func checkTarget(v *value, group, kind string) bool {
	switch {
	case group == GatewayGroup && (kind == GRPCRouteKind || kind == HTTPRouteKind):
		return true
	case group == OwnGroup && kind == BackendKind:
		v.fault("a policy for kind %s is not supported yet", kind)
	default:
		v.fault("kind %s of group %s is not supported, want %s or %s of group %s", quote(kind), quote(group), GRPCRouteKind, HTTPRouteKind, GatewayGroup)
	}
	return false
}

func readRPCTimeouts(v *value) *RPCTimeouts {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	usual := m.optional("default")
	t := &RPCTimeouts{
		Request:      m.optional("request").duration(0, time.Millisecond, maxTimeout),
		Default:      usual.duration(0, time.Millisecond, maxTimeout),
		StreamIdle:   m.optional("streamIdle").duration(0, time.Millisecond, maxTimeout),
		StreamMaxAge: m.optional("streamMaxAge").duration(0, time.Millisecond, maxTimeout),
	}
	if t.Request != 0 && t.Default > t.Request {
		usual.fault("%s is longer than an RPC may take at all, request: %s", t.Default, t.Request)
	}
	return t
}

func readRetryPolicy(v *value) *RetryPolicy {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	p := &RetryPolicy{
		Attempts:      m.required("attempts").integer(1, 1, maxAttempts),
		Codes:         readCodes(m.optional("codes"), DefaultRetry().Codes, checkCode),
		PerTryTimeout: m.optional("perTryTimeout").duration(0, time.Millisecond, maxTimeout),
		Backoff:       readBackoff(m.optional("backoff")),
		Methods:       oneOf(m.optional("methods"), "choice of methods", AllMethods, AllMethods, IdempotentMethods),
	}
	p.setDefaults()
	return p
}

func readBackoff(v *value) Backoff {
	m := v.mapping()
	defer m.finish()
	most := m.optional("max")
	b := Backoff{
		Base: m.optional("base").duration(DefaultBackoffBase, time.Millisecond, maxBackoff),
		Max:  most.duration(0, time.Millisecond, maxBackoff),
	}
	if b.Max != 0 && b.Max < b.Base {
		most.fault("%s is shorter than base, %s", b.Max, b.Base)
	}
	return b
}

// setDefaults fills in what holds for a text that does not say, or was kept when there
// was less to be said.
func (p *RetryPolicy) setDefaults() {
	if p.Methods == "" {
		p.Methods = AllMethods
	}
	if p.Backoff.Base == 0 {
		p.Backoff.Base = Duration(DefaultBackoffBase)
	}
	if p.Backoff.Max == 0 {
		p.Backoff.Max = min(backoffSpan*p.Backoff.Base, Duration(maxBackoff))
	}
}

func readHedging(v *value) *Hedging {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	return &Hedging{
		Attempts: m.optional("attempts").integer(1, 1, maxHedges),
		Delay:    m.required("delay").duration(time.Millisecond, time.Millisecond, maxHedgeDelay),
	}
}

func readRateLimit(v *value) RateLimit {
	m := v.mapping()
	defer m.finish()
	requests := m.required("requests").integer(1, 1, maxRate)
	return RateLimit{
		Requests: requests,
		Interval: m.optional("interval").duration(defaultRateWindow, time.Millisecond, maxRateWindow),
		Burst:    m.optional("burst").integer(requests, 1, maxRate),
		Key:      readRateKey(m.optional("key")),
		Scope:    readScope(m.optional("scope")),
	}
}

func readScope(v *value) LimitScope {
	return oneOf(v, "scope", GatewayScope, GatewayScope, ClusterScope)
}

func readRateKey(v *value) *RateKey {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	m.exactlyOne("header", "clientAddress")
	return &RateKey{
		Header:        strings.ToLower(m.optional("header").word(checkHeaderName)),
		ClientAddress: m.optional("clientAddress").yes(),
	}
}

// readCodes reads a list without repetitions; def stands for no list, and for an empty one.
func readCodes(v *value, def []Code, check func(string) string) []Code {
	items := v.list(len(codes))
	if len(items) == 0 {
		return def
	}
	seen := make(map[Code]bool, len(items))
	return each(items, func(v *value) Code {
		code := Code(v.word(check))
		if code != "" && seen[code] {
			v.fault("%s is there already", code)
		}
		seen[code] = true
		return code
	})
}

func checkCode(s string) string {
	if !slices.Contains(codes, Code(s)) {
		return "want the name of a status code of gRPC, like UNAVAILABLE"
	}
	return ""
}

func readRetryConstraint(v *value) *RetryConstraint {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	budget, rate := m.optional("budget").mapping(), m.optional("minRetryRate").mapping()
	defer budget.finish()
	defer rate.finish()
	return &RetryConstraint{
		Budget: RetryBudget{
			Percent:  budget.optional("percent").integer(DefaultBudgetPercent, 0, 100),
			Interval: budget.optional("interval").duration(DefaultBudgetInterval, time.Second, maxRetryInterval),
		},
		MinRetryRate: RetryRate{
			Count:    rate.optional("count").integer(DefaultRetryCount, 1, maxRetryCount),
			Interval: rate.optional("interval").duration(DefaultRetryInterval, time.Millisecond, maxRetryInterval),
		},
		Scope: readScope(m.optional("scope")),
	}
}

func readSplitPolicy(v *value) *SplitPolicy {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	split := &SplitPolicy{
		WhenNoEndpoints: oneOf(m.optional("whenNoEndpoints"), "behaviour", Unavailable, Unavailable, SpillOver),
	}
	if sticky := m.optional("sticky"); !sticky.absent() {
		split.Sticky = readSticky(sticky.mapping())
	}
	return split
}

func readSticky(m *mapping) *Sticky {
	defer m.finish()
	m.refuse("cookie")
	return &Sticky{Header: strings.ToLower(m.required("header").word(checkHeaderName))}
}

func readPolicyCORS(v *value) *CORS {
	if v.absent() {
		return nil
	}
	return readCORS(v.mapping())
}

func readTranslation(v *value) *Translation {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	return &Translation{
		UnknownFields:     oneOf(m.optional("unknownFields"), "behaviour", RejectUnknown, RejectUnknown, IgnoreUnknown),
		UnknownParameters: oneOf(m.optional("unknownParameters"), "behaviour", RejectUnknown, RejectUnknown, IgnoreUnknown),
		MaxMessageBytes:   m.optional("maxMessageBytes").integer(DefaultMaxMessageBytes, 1, maxMaxMessageBytes),
	}
}

func readExpose(v *value) *Expose {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	return &Expose{Reflection: m.optional("reflection").boolean(), OpenAPI: m.optional("openAPI").boolean()}
}

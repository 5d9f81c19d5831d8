package store

// Treatment is what becomes of the requests of a rule, beside where they go. It is no
// part of a manifest: a rule that was read has the defaults and, in an HTTPRoute, what
// its CORS filter says; in an effective set also what the policies say that target it.
type Treatment struct {
	CORS        *CORS       // nil lets no other origin in
	Translation Translation // with the defaults filled in
	Expose      Expose

	Timeouts        *RPCTimeouts     // nil bounds nothing
	Retry           *RetryPolicy     // nil means DefaultRetry
	RetryConstraint *RetryConstraint // nil means the backend's own budget
	Hedging         *Hedging
	RateLimits      []RateLimit
	HTTP            *HTTPTimeouts // what the rule of an HTTPRoute says itself; goes before Timeouts
}

// DefaultTranslation is what holds for a rule of which no policy speaks.
var DefaultTranslation = Translation{
	UnknownFields:     RejectUnknown,
	UnknownParameters: RejectUnknown,
	MaxMessageBytes:   DefaultMaxMessageBytes,
}

// declareTreatment fills in what the rules themselves say.
func declareTreatment(route Route) {
	for i := range route.RuleCount() {
		rule := route.rule(i)
		*rule.treatment = Treatment{Translation: DefaultTranslation, CORS: corsFilter(rule.filters), HTTP: rule.timeouts}
	}
}

func corsFilter(filters []Filter) *CORS {
	for _, f := range filters {
		if f.CORS != nil {
			return f.CORS
		}
	}
	return nil
}

// treat fills in what the policies say about a rule. A filter of the rule itself goes
// before them.
func treat(route Route, rule routeRule, policies []*Object) {
	t := rule.treatment
	said := func(says func(*RPCPolicySpec) bool) *RPCPolicySpec { return policyOf(route, rule.name, policies, says) }
	if p := said(func(s *RPCPolicySpec) bool { return s.CORS != nil }); p != nil && t.CORS == nil {
		t.CORS = p.CORS
	}
	if p := said(func(s *RPCPolicySpec) bool { return s.Translation != nil }); p != nil {
		t.Translation = *p.Translation
	}
	if p := said(func(s *RPCPolicySpec) bool { return s.Expose != nil }); p != nil {
		t.Expose = *p.Expose
	}
	if p := said(func(s *RPCPolicySpec) bool { return s.Timeouts != nil }); p != nil {
		t.Timeouts = p.Timeouts
	}
	if p := said(func(s *RPCPolicySpec) bool { return s.Retry != nil }); p != nil {
		retry := *p.Retry
		retry.setDefaults() // one that was kept when there were fewer fields
		t.Retry = &retry
	}
	if p := said(func(s *RPCPolicySpec) bool { return s.RetryConstraint != nil }); p != nil {
		t.RetryConstraint = p.RetryConstraint
	}
	if p := said(func(s *RPCPolicySpec) bool { return s.Hedging != nil }); p != nil {
		t.Hedging = p.Hedging
	}
	if p := said(func(s *RPCPolicySpec) bool { return len(s.RateLimits) > 0 }); p != nil {
		t.RateLimits = p.RateLimits
	}
}

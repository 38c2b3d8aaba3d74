package route

// Mirror sends copies of requests to a pool, whose answers nobody gets (Gateway API: RequestMirror). Of every Denominator requests Numerator are mirrored, by chance.
type Mirror struct {
	Pool                   *Pool
	Numerator, Denominator int32
}

// String returns the filter on one line, such as "mirror shop/web-v2:80 50%".
func (f *Mirror) String() string {
	return joinWords("mirror", word(f.Pool.Key.String(), ""), share(int64(f.Numerator), int64(f.Denominator)))
}

func (*Mirror) filter() {}

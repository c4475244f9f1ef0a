/** Times of the week as people write them: `Mon-Fri 08:00-18:00`, `Sat,Sun`, `22:00-06:00`. */

const dayNames = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat']
const dayMinutes = 1440
const weekMinutes = 7 * dayMinutes

/** Minutes since Sunday 00:00; `end` is not part of it and may lie in the next week. */
interface Stretch {
  readonly start: number
  readonly end: number
}

export class WeekTime {
  readonly #stretches: readonly Stretch[]

  constructor(stretches: readonly Stretch[]) {
    this.#stretches = stretches
  }

  /** In the time zone of this machine. */
  holds(date: Date): boolean {
    const now = date.getDay() * dayMinutes + date.getHours() * 60 + date.getMinutes()
    return this.#stretches.some(
      ({ start, end }) =>
        (now >= start && now < end) || (now + weekMinutes >= start && now + weekMinutes < end),
    )
  }
}

/** Undefined when the text is no time of the week. A time that ends before it starts ends on the next day. */
export function parseWeekTime(text: string): WeekTime | undefined {
  const match = /^(?:([A-Za-z][A-Za-z,-]*)\s*)?(?:(\d\d):(\d\d)-(\d\d):(\d\d))?$/.exec(text.trim())
  if (match === null || text.trim() === '') return undefined
  const days = match[1] === undefined ? [0, 1, 2, 3, 4, 5, 6] : parseDays(match[1])
  if (days === undefined) return undefined
  let [from, to] = [0, dayMinutes]
  if (match[2] !== undefined) {
    const fromMinutes = minutesOf(match[2], match[3])
    const toMinutes = minutesOf(match[4], match[5])
    if (fromMinutes === undefined || toMinutes === undefined || fromMinutes === toMinutes) {
      return undefined
    }
    from = fromMinutes
    to = toMinutes < fromMinutes ? toMinutes + dayMinutes : toMinutes
  }
  return new WeekTime(
    days.map(day => ({ start: day * dayMinutes + from, end: day * dayMinutes + to })),
  )
}

function parseDays(text: string): number[] | undefined {
  const days = new Set<number>()
  for (const part of text.split(',')) {
    const [first, last = first, ...rest] = part
      .split('-')
      .map(name => dayNames.indexOf(name.toLowerCase()))
    if (first === undefined || last === undefined || first < 0 || last < 0 || rest.length > 0) {
      return undefined
    }
    for (let day = first; ; day = (day + 1) % 7) {
      days.add(day)
      if (day === last) break
    }
  }
  return [...days]
}

/** 24:00 is the end of the day. */
function minutesOf(hours = '', minutes = ''): number | undefined {
  const total = Number(hours) * 60 + Number(minutes)
  return Number(minutes) < 60 && total <= dayMinutes ? total : undefined
}

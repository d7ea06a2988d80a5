// The page's words as a test has them: those of locales/*/main.json.
import { readFileSync } from 'node:fs'
import { setWords } from '../../web/words.js'

const LANGUAGES = ['en', 'zh', 'ja', 'ko']
const read = (language) => JSON.parse(readFileSync(new URL(`../../locales/${language}/main.json`, import.meta.url)))

export const speak = (language) => setWords(Object.fromEntries(LANGUAGES.map((name) => [name, read(name)])), language)

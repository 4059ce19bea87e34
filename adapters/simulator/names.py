"""Word lists for people and places that do not exist, in Spanish, Guaraní and the languages of the neighbours.

Order matters: the front of a list is drawn more often than its end. All text is in Unicode form NFC; g̃ has no
single code point and stays two, and Guaraní vowels with a tilde (ẽ, ĩ, ũ, ỹ) are missing from ISO-8859-1 and cp1252.
"""

from __future__ import annotations

GIVEN_F = (
    "María", "Rosa", "Juana", "Ana", "Liz", "Carmen", "Gloria", "Sofía", "Mirtha", "Camila", "Lourdes", "Fátima",
    "Graciela", "Ramona", "Jazmín", "Paola", "Teresa", "Verónica", "Belén", "Araceli", "Celeste", "Norma", "Élida",
    "Antonia", "Lucía", "Romina", "Guadalupe", "Fabiola", "Begoña", "Ñeca", "Concepción", "Zunilda", "Inés", "Noelia",
    "Asunción", "Mónica", "Úrsula", "Trinidad", "Blanca", "Itatí", "Pabla", "Elvira", "Raquel", "Dominga", "Nélida",
)  # fmt: skip
GIVEN_M = (
    "José", "Juan", "Carlos", "Luis", "Miguel", "Pedro", "Ángel", "Mateo", "Víctor", "Hugo", "Ramón", "Julio", "César",
    "Óscar", "Derlis", "Francisco", "Aníbal", "Richard", "Jesús", "Arnaldo", "Santiago", "Fermín", "Rubén", "Joaquín",
    "Blas", "Sebastián", "Iván", "Benjamín", "Cristóbal", "Éver", "Gregorio", "Nicolás", "Edgar", "Dionisio", "Raúl",
    "Félix", "Agustín", "Wilfrido", "Tomás", "Germán", "Marciano", "Efraín", "Isidro", "Porfirio", "Moisés", "Zacarías",
)  # fmt: skip
GUARANI_F = (
    "Arami", "Jasy", "Yvoty", "Panambi", "Ñasaindy", "Ko'ẽ", "Vy'a", "Kuñataĩ", "Mimbi", "Jasyrendy", "Ysapy",
    "Irupẽ", "Eirete", "Ñanduti", "Kerana", "Ko'ẽmbota", "Porãsy", "Tesãi", "Mborayhu", "Akỹ", "Ag̃uĩ", "Yvága",
)  # fmt: skip
GUARANI_M = (
    "Arandu", "Kuarahy", "Tupã", "Vera", "Ñamandu", "Karai", "Mbarete", "Yvytu", "Ko'ẽju", "Arasunu", "Py'aguasu",
    "Marangatu", "Tatarendy", "Jaguarete", "Ysyry", "Rory", "Avaré", "Mainumby", "Ñemitỹ", "Hag̃ua", "Tajy", "Itá",
)  # fmt: skip
SURNAMES = (
    "González", "Benítez", "Martínez", "López", "Giménez", "Vera", "Duarte", "Ramírez", "Fernández", "Villalba",
    "Gómez", "Acosta", "Rojas", "Ortiz", "Cáceres", "Rodríguez", "Núñez", "Ayala", "Galeano", "Báez", "Romero",
    "Ojeda", "Cabrera", "Franco", "Aquino", "Vázquez", "Ríos", "Sánchez", "Zárate", "Peña", "Cardozo", "Melgarejo",
    "Ibarra", "Espínola", "Alcaraz", "Patiño", "Insfrán", "Mareco", "Ñamandú", "Céspedes", "Ovelar", "Riquelme",
    "Argüello", "Brítez", "Cuevas", "Pereira", "Miño", "Ñanduá", "Chaparro", "Yegros", "Arévalos", "Noguera",
    "Bogado", "Recalde", "O'Leary", "Saldívar", "Amarilla", "Leguizamón", "Estigarribia", "De la Cruz", "Quiñónez",
)  # fmt: skip
GUARANI_SURNAMES = (
    "Benítez", "Vera", "Duarte", "Takua", "Mbo'ehára", "Ka'aguy", "Yvypóra", "Tupã'i", "Kurusu", "Arandu", "Chamorro",
    "Guyrapepo", "Ñe'ẽngatu", "Cáceres", "Jeguaka", "Jerovia", "Karaja'y", "Portillo", "Mariño", "Ag̃aite", "Ysypo'ỹ",
)  # fmt: skip
#: ISO 3166-1 alpha-3 code → surnames of people with that nationality.
FOREIGN_SURNAMES = {
    "BRA": ("da Silva", "Gonçalves", "Conceição", "Müller", "Schäfer", "Araújo", "Guimarães", "Brandão", "Weiß"),
    "ARG": ("Pérez", "D'Angelo", "Agüero", "Muñoz", "Ibáñez", "Quiroga", "Bianchi", "Ledesma", "Nuñez"),
    "DEU": ("Dück", "Giesbrecht", "Löwen", "Groß", "Harder", "Wiebe", "Bärg"),
    "UKR": ("Kovalenko", "Shevchuk", "Bondar", "Mel'nyk"),
}
#: Names of a boy and a girl that differ by little, as parents of twins like them and as matching software fears them.
TWIN_NAMES = (
    ("Daniel", "Daniela"), ("Fabián", "Fabiana"), ("Gabriel", "Gabriela"), ("Andrés", "Andrea"), ("Ángel", "Ángela"),
    ("Luis", "Luisa"), ("Adrián", "Adriana"), ("Julio", "Julia"), ("Víctor", "Victoria"), ("Lucio", "Lucía"),
    ("Ko'ẽju", "Ko'ẽ"), ("Yvytu", "Yvoty"),
)  # fmt: skip
PROFESSIONS = (
    "Comerciante", "Labores del hogar", "Agricultura familiar", "Docente", "Albañilería", "Empleo doméstico", "Chofer",
    "Estudiante", "Mecánica", "Enfermería", "Artesanía (ñanduti)", "Electricista", "Pesca", "Modista", "Mbo'ehára",
    "Contador público", "Guardia de seguridad", "Ganadería", "Panadería", "Carpintería", "Partera", "Apicultura",
)  # fmt: skip
NEIGHBOURHOODS = (
    "Centro", "San Miguel", "Virgen de Caacupé", "San Blas", "Santa Lucía", "San Roque", "María Auxiliadora",
    "Sagrado Corazón", "8 de Diciembre", "San José Obrero", "Mbokajaty", "Las Mercedes", "Ñu Porã", "Loma Pytã",
    "Villa del Maestro", "Primavera", "Ykua Satĩ", "Santa Librada", "Cerro Porã", "Fátima",
)  # fmt: skip
RURAL_PLACES = (
    "Compañía Potrero", "Colonia San Isidro", "Arroyo Porã", "Isla Guasu", "Cerro Corá", "Calle 6", "Yvu Porã",
    "Colonia Ñepytyvõ", "Costa Pucú", "Paso Itá", "Ka'aguy Rory", "Tacuara", "Laguna Verá", "Rincón Guazú",
    "Colonia Piky'i", "Jhugua Po'i", "Asentamiento 1.º de Mayo", "Ñemitỹrã", "Toro Blanco", "Ysau",
)  # fmt: skip
#: Communities made up from ordinary Guaraní words; none is taken from the register of INDI.
COMMUNITIES = (
    "Tekoha Yvy Marae'ỹ", "Tekoha Ka'aguy Poty", "Comunidad Ko'ẽ Rory", "Comunidad Ñu Apu'a", "Aldea Y Akã Satĩ",
    "Tekoha Jasy Renda", "Comunidad Takua Jovái", "Aldea Pindo'i", "Comunidad Arroyo Mokõi", "Tekoha Mbytu'i",
    "Comunidad Nueva Vida", "Aldea Yvytĩ", "Comunidad Algarrobo Poty", "Comunidad Karanda'y Satĩ", "Tekoha Vy'arã",
)  # fmt: skip
